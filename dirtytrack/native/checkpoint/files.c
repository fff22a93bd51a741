// System calls, and what to do where there are none.
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/patience.h"

int dt_not_offered(int error)
{
	return error == ENOSYS || error == EOPNOTSUPP || error == EINVAL || error == ENOTTY || error == EPERM;
}

int dt_start_writeback(int fd)
{
	dt_takes_long();
	if (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) == 0)
		return 0;
	return dt_not_offered(errno) || errno == ESPIPE ? 0 : -errno;
}

// A directory can be opened for reading only, and some systems sync nothing that was.
static int reading_is_too_little(int fd, int error)
{
	return error == EACCES || error == EISDIR || (error == EBADF && fcntl(fd, F_GETFD) >= 0);
}

int dt_sync_directory(int fd)
{
	dt_takes_long();
	int error = fsync(fd) ? errno : 0;
	return dt_not_offered(error) || reading_is_too_little(fd, error) ? 0 : -error;
}

int dt_map_file(uint64_t start, size_t bytes, int fd, uint64_t offset)
{
	int access = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED;
	return mmap((void *)(uintptr_t)start, bytes, access, flags, fd, (off_t)offset) == MAP_FAILED ? -errno : 0;
}

int dt_rename_noreplace(int directory, const char *from, const char *to)
{
	dt_takes_long();
	return renameat2(directory, from, directory, to, RENAME_NOREPLACE) ? -errno : 0;
}

// To look first suffices where names are random and one writer makes them.
int dt_rename_new(int directory, const char *from, const char *to)
{
	struct statx status; // not fstatat, which would need glibc 2.33
	int error = dt_rename_noreplace(directory, from, to);
	if (!dt_not_offered(-error))
		return error;
	if (statx(directory, to, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &status) == 0)
		return -EEXIST;
	if (errno != ENOENT)
		return -errno;
	return renameat(directory, from, directory, to) ? -errno : 0;
}
