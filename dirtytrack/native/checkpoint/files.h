// What a writer of checkpoints needs of the file system, and Python does not offer.
#pragma once

// Starts to write a file to disk, without waiting for it. 0, also where the system or the file has no such call;
// -errno.
int dt_start_writeback(int fd);
// Renames within a directory, given by a descriptor. -EEXIST if the new name is taken; -errno.
int dt_rename_new(int directory, const char *from, const char *to);
