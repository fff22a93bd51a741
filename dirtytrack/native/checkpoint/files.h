// What a writer of checkpoints needs of the file system, and Python does not offer. Not every file system has all of
// it; what is done without is said here.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checksum.h"

#pragma GCC visibility push(hidden)

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
// The right to write to a directory, and what a file that is committed there stands on.
struct dt_claim {
	int lock; // the lock file
	int directory;
	const char *name;         // of the lock file
	const uint8_t *signature; // what it holds
	size_t bytes;             // of that, at most 64
	bool is_locked;           // whether it is locked besides
	const char *names;        // of files that have to be there, one after the other, each with its zero
	size_t count;             // of them
};

// Whether a lock file is still locked by this process, the one of that name, and holds its signature and no more; and
// whether all files are there. 1; 0: something of that is not so, or can't be found out.
int dt_claim_holds(const struct dt_claim *claim);
// Starts to write a file to disk, without waiting for it. 0, also where there is no such call; -errno.
int dt_start_writeback(int fd);
// Has the names in a directory on the disk. 0, also where directories can't be synced; -errno.
int dt_sync_directory(int fd);
// Maps some of a file, private and writable, in the place of memory that is there; it takes no descriptor. -errno.
int dt_map_file(uint64_t start, size_t bytes, int fd, uint64_t offset);
// Renames within a directory, given by a descriptor. -EEXIST if the new name is taken; -errno.
int dt_rename_noreplace(int directory, const char *from, const char *to);
// The same; where a rename can't refuse to replace, the name is looked up before it.
int dt_rename_new(int directory, const char *from, const char *to);

#pragma GCC visibility pop
