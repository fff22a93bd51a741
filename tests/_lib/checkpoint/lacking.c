// Put before the C library, this plays file systems that lack something. LACKS names calls and how they fail, as in
// "fsync-directory=22 lock=37"; it is read at each call.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int lacks(const char *call)
{
	const char *found = getenv("LACKS");
	size_t length = strlen(call);
	for (; found && (found = strstr(found, call)); found += length) {
		if (found[length] == '=') {
			errno = atoi(found + length + 1);
			return 1;
		}
	}
	return 0;
}

int fsync(int fd)
{
	struct stat status;
	int is_directory = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
	return lacks(is_directory ? "fsync-directory" : "fsync-file") ? -1 : (int)syscall(SYS_fsync, fd);
}

static int locks(int fd, int command, void *argument)
{
	int is_lock = command == F_SETLK || command == F_SETLKW || command == F_GETLK;
	return is_lock && lacks("lock") ? -1 : (int)syscall(SYS_fcntl, fd, command, argument);
}

int fcntl(int fd, int command, ...)
{
	va_list arguments;
	va_start(arguments, command);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	return locks(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
	va_list arguments;
	va_start(arguments, command);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	return locks(fd, command, argument);
}

int renameat2(int from, const char *name, int to, const char *other, unsigned flags)
{
	return flags && lacks("rename") ? -1 : (int)syscall(SYS_renameat2, from, name, to, other, flags);
}

int sync_file_range(int fd, off_t offset, off_t bytes, unsigned flags)
{
	return lacks("writeback") ? -1 : (int)syscall(SYS_sync_file_range, fd, offset, bytes, flags);
}

off_t lseek(int fd, off_t offset, int whence)
{
	return whence == SEEK_DATA && lacks("holes") ? -1 : syscall(SYS_lseek, fd, offset, whence);
}

off_t lseek64(int fd, off_t offset, int whence)
{
	return lseek(fd, offset, whence);
}
