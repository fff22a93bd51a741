// What a writer of checkpoints needs of the file system, and Python does not offer. Not every file system has all of
// it; what is done without is said here.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "checksum.h"

// Bytes that have their place in a file.
struct dt_write {
	uint64_t offset;
	uint64_t bytes;
	const uint8_t *data;
};

// Writes n pieces, one after the other. 0; -errno, and then some of it may be written.
int dt_write_all(int fd, const struct dt_write *pieces, size_t n);
// Reads a file from an offset on, and adds what it has read to a checksum, while that lies in the processor's cache;
// NULL: to none. How many bytes, fewer where the file ends; or -errno.
int64_t dt_read_file(int fd, uint64_t offset, uint8_t *to, uint64_t bytes, struct dt_checksum *sum);
// Whether an errno says that a call is not offered for this file, by its file system, the kernel, or a container's
// filter. What a full or broken disk says is none of them.
int dt_not_offered(int error);
// Whether a lock file is still locked by this process, the one of that name, and holds these bytes (at most 64) and no
// more; and whether n files are there, the names of which follow each other, each with its zero. 1; 0: something of
// that is not so, or can't be found out. Without locks it is not locked again.
int dt_claim_holds(int lock, int directory, const char *name, const uint8_t *signature, size_t bytes, int locks,
		   const char *names, size_t n);
// Starts to write a file to disk, without waiting for it. 0, also where there is no such call; -errno.
int dt_start_writeback(int fd);
// Has the names in a directory on the disk. 0, also where directories can't be synced; -errno.
int dt_sync_directory(int fd);
// Maps some of a file, private and writable, in the place of memory that is there; it takes no descriptor. -errno.
int dt_map_file(uint64_t start, size_t bytes, int fd, uint64_t offset);
// System calls to be made one after the other, with one entry from Python.
enum dt_file_act {
	DT_WRITE,     // dt_write_all
	DT_WRITEBACK, // dt_start_writeback
	DT_FSYNC,
	DT_CLOSE,
	DT_RENAME,        // dt_rename_new
	DT_SYNC_DIRECTORY // dt_sync_directory
};

struct dt_file_call {
	int act;
	int fd;                        // of the file; of its directory, for the last two
	const struct dt_write *pieces; // DT_WRITE: count of them
	size_t count;
	const char *name, *new_name; // DT_RENAME
};

// Makes n calls, up to the first that fails. 0 or -errno of that; *done_ret: how many were made before it.
int dt_file_calls(const struct dt_file_call *calls, size_t n, size_t *done_ret);

// Renames within a directory, given by a descriptor. -EEXIST if the new name is taken; -errno.
int dt_rename_noreplace(int directory, const char *from, const char *to);
// The same; where a rename can't refuse to replace, the name is looked up before it.
int dt_rename_new(int directory, const char *from, const char *to);
