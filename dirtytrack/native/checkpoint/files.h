// What a writer of checkpoints needs of the file system, and Python does not offer. Not every file system has all of
// it; what is done without is said here.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Whether an errno says that a call is not offered for this file, by its file system, the kernel, or a container's
// filter. What a full or broken disk says is none of them.
int dt_not_offered(int error);
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
