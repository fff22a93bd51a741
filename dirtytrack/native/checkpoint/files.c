// System calls, and what to do where there are none.
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/patience.h"

enum { SUMMED = 1 << 18 }; // bytes that are read before they are summed

static int write_piece(int fd, struct dt_write piece)
{
	while (piece.bytes) {
		ssize_t done = pwrite(fd, piece.data, piece.bytes, (off_t)piece.offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO; // no progress
		piece.offset += (uint64_t)done;
		piece.bytes -= (uint64_t)done;
		piece.data += done;
	}
	return 0;
}

int dt_write_all(int fd, const struct dt_write *pieces, size_t n)
{
	int error = 0;
	dt_takes_long();
	for (size_t i = 0; !error && i < n; i++)
		error = write_piece(fd, pieces[i]);
	return error;
}

int64_t dt_read_file(int fd, uint64_t offset, uint8_t *to, uint64_t bytes, struct dt_checksum *sum)
{
	uint64_t done = 0;
	dt_takes_long();
	while (done < bytes) {
		size_t most = sum && bytes - done > SUMMED ? SUMMED : bytes - done;
		ssize_t got = pread(fd, to + done, most, (off_t)(offset + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : (int64_t)done;
		if (sum)
			dt_checksum_add(sum, to + done, (size_t)got);
		done += (uint64_t)got;
	}
	return (int64_t)done;
}

int dt_not_offered(int error)
{
	return error == ENOSYS || error == EOPNOTSUPP || error == EINVAL || error == ENOTTY || error == EPERM;
}

static bool is_same(const struct statx *a, const struct statx *b)
{
	return a->stx_ino == b->stx_ino && a->stx_dev_major == b->stx_dev_major && a->stx_dev_minor == b->stx_dev_minor;
}

static bool is_own(const struct dt_claim *claim)
{
	struct statx there, ours; // not fstatat, which would need glibc 2.33
	uint8_t found[65];
	if (statx(claim->directory, claim->name, AT_SYMLINK_NOFOLLOW, STATX_INO, &there) ||
	    statx(claim->lock, "", AT_EMPTY_PATH, STATX_INO, &ours) || !is_same(&there, &ours))
		return false;
	return pread(claim->lock, found, claim->bytes + 1, 0) == (ssize_t)claim->bytes &&
	       memcmp(found, claim->signature, claim->bytes) == 0;
}

int dt_claim_holds(const struct dt_claim *claim)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	const char *name = claim->names;
	struct statx status;
	dt_takes_long();
	if ((claim->is_locked && fcntl(claim->lock, F_SETLK, &all)) || !is_own(claim))
		return 0;
	for (size_t left = claim->count; left; left--, name += strlen(name) + 1)
		if (statx(claim->directory, name, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &status))
			return 0;
	return 1;
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
	struct statx status;
	int error = dt_rename_noreplace(directory, from, to);
	if (!dt_not_offered(-error))
		return error;
	if (statx(directory, to, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &status) == 0)
		return -EEXIST;
	if (errno != ENOENT)
		return -errno;
	return renameat(directory, from, directory, to) ? -errno : 0;
}
