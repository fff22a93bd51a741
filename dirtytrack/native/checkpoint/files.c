// Two system calls, and what to do without them.
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/patience.h"

int dt_start_writeback(int fd)
{
	dt_takes_long();
	if (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) == 0)
		return 0;
	// A system that does not have the call, or not for this file, or a container that forbids it, does without.
	return errno == ENOSYS || errno == EPERM || errno == EINVAL || errno == ESPIPE ? 0 : -errno;
}

// Not every file system has the flag (EINVAL); there the name is looked up first, which suffices where names are random
// and one writer makes them.
int dt_rename_new(int directory, const char *from, const char *to)
{
	struct statx status; // not fstatat, which would need glibc 2.33
	dt_takes_long();
	if (renameat2(directory, from, directory, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (statx(directory, to, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &status) == 0)
		return -EEXIST;
	return renameat(directory, from, directory, to) ? -errno : 0;
}
