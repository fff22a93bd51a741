// The linker puts these in the place of the system calls of the core, and for the address sanitizer the allocator.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include "driver.h"
#include "failing.h"

static long calls_left, mappings, blocks;
static pthread_t whose; // calls fail
static enum failing how_to_fail;
static bool failed;
static int error_given;

void fail_call(long number, enum failing how, int error)
{
	whose = pthread_self();
	calls_left = number;
	how_to_fail = how;
	error_given = error;
	failed = false;
}

void succeed(void)
{
	calls_left = 0;
}

bool has_failed(void)
{
	return failed;
}

long held_mappings(void)
{
	return __atomic_load_n(&mappings, __ATOMIC_RELAXED);
}

long held_blocks(void)
{
	return __atomic_load_n(&blocks, __ATOMIC_RELAXED);
}

// Only a session's own thread is beside the one whose calls fail, so only what they change at the same time is atomic.
static bool comes_to_fail(void)
{
	if (!pthread_equal(whose, pthread_self()))
		return false;
	if (calls_left == 0 || (calls_left > 1 && calls_left--))
		return false;
	calls_left = how_to_fail == ALWAYS;
	failed = true;
	errno = error_given;
	return true;
}

static bool fails(void)
{
	return how_to_fail != ALLOCATIONS_ONLY && comes_to_fail();
}

#ifdef __SANITIZE_ADDRESS__
// Each block on the heap by itself, where the sanitizer sees its bounds and its end; memory.c's own allocator is
// left to the other build. The size given back has to be the size asked for.
void *dt_alloc(size_t bytes)
{
	size_t *block = comes_to_fail() ? NULL : calloc(1, sizeof(size_t) * 2 + bytes);
	if (!block)
		return NULL;
	__atomic_add_fetch(&blocks, 1, __ATOMIC_RELAXED);
	*block = bytes;
	return block + 2;
}

void dt_free(void *pointer, size_t bytes)
{
	if (!pointer)
		return;
	size_t *block = (size_t *)pointer - 2;
	check(*block == bytes);
	__atomic_sub_fetch(&blocks, 1, __ATOMIC_RELAXED);
	free(block);
}
#endif

int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	return fails() ? -1 : __real_ioctl(fd, request, argument);
}

void *__real_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	void *found = fails() ? MAP_FAILED : __real_mmap(address, bytes, protection, flags, fd, offset);
	if (found != MAP_FAILED)
		__atomic_add_fetch(&mappings, 1, __ATOMIC_RELAXED);
	return found;
}

int __real_munmap(void *address, size_t bytes);
int __wrap_munmap(void *address, size_t bytes)
{
	__atomic_sub_fetch(&mappings, 1, __ATOMIC_RELAXED);
	return __real_munmap(address, bytes);
}

int __real_madvise(void *address, size_t bytes, int advice);
int __wrap_madvise(void *address, size_t bytes, int advice)
{
	return fails() ? -1 : __real_madvise(address, bytes, advice);
}

// What it says of memory is believed: a failure is a loss, of which the region's users are told.
int __real_msync(void *address, size_t bytes, int flags);
int __wrap_msync(void *address, size_t bytes, int flags)
{
	return fails() ? -1 : __real_msync(address, bytes, flags);
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	long given[6];
	va_list arguments;
	va_start(arguments, number);
	for (int i = 0; i < 6; i++) // those that were not given are anything, and ignored
		given[i] = va_arg(arguments, long);
	va_end(arguments);
	if (number != SYS_futex && fails()) // a futex at an address that is there has no way to fail
		return -1;
	return __real_syscall(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
	return fails() ? -1 : __real_open(path, flags);
}

ssize_t __real_pread(int fd, void *data, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset)
{
	if (fails())
		return error_given ? -1 : 0;
	return __real_pread(fd, data, calls_left && bytes > 3 ? 3 : bytes, offset);
}

ssize_t __real_pwrite(int fd, const void *data, size_t bytes, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
	if (fails())
		return error_given ? -1 : 0; // without progress
	return __real_pwrite(fd, data, calls_left && bytes > 3 ? 3 : bytes, offset);
}

int __real_renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags);
int __wrap_renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags)
{
	return fails() ? -1 : __real_renameat2(from_directory, from, to_directory, to, flags);
}

int __real_sync_file_range(int fd, off_t offset, off_t bytes, unsigned flags);
int __wrap_sync_file_range(int fd, off_t offset, off_t bytes, unsigned flags)
{
	return fails() ? -1 : __real_sync_file_range(fd, offset, bytes, flags);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd)
{
	return fails() ? -1 : __real_fsync(fd);
}
