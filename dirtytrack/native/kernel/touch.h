// Touching memory that may be inaccessible. A load or a store would be a signal; the kernel, asked to copy, returns an
// error. Every function keeps no state and takes no lock; from any thread. What is copied from or to is memory of the
// library's own, which nobody takes away.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../base/runs.h"

#pragma GCC visibility push(hidden)

enum { DT_PIECES = 64 }; // that one call copies

// Reads memory: the bytes read, up to the first page that can't be. -errno where a filter forbids process_vm_readv(2),
// on which it rests.
long dt_read_memory(uint64_t start, void *to, size_t bytes);
// Reads n pieces (1 to DT_PIECES, and 1 GiB in all) to as many of the same lengths, through a pipe of its own where
// a filter forbids that. 0; or -errno, with the addresses of the piece from the first page on that can't be read:
// -EFAULT.
int dt_copy_pieces(const struct iovec *from, const struct iovec *to, size_t n, struct dt_run *refused_ret);
// The same for one piece of any length, and for writing one. 0; or -errno, with the address of that page.
int dt_copy_from(uint64_t start, void *to, size_t bytes, uint64_t *refused_ret);
int dt_copy_to(uint64_t start, const void *from, size_t bytes, uint64_t *refused_ret);

// Whether memory may be touched, asked beforehand: of ranges by ascending address.
struct dt_touch {
	int maps;              // /proc/self/maps
	int pagemap;           // /proc/self/pagemap
	bool write;            // to be written; else to be read only
	uint64_t permitted_to; // the end of the mapping that was asked about last
};
// 0 if all of the pages [start, stop) can be touched, as far as that can be asked: not whether they are beyond the end
// of their file. -EACCES: they are protected. -EFAULT: guard pages are among them. Else -errno: it can't be asked
// (before Linux 6.11, or 6.16).
int dt_may_touch(struct dt_touch *touch, uint64_t start, uint64_t stop);
// The same for the pages of n runs, by ascending address, counted from `base`; of what lies between them some may be
// refused, too. Where they are few, a byte of each is read, which costs less than to look through all between them.
int dt_may_touch_runs(struct dt_touch *touch, uint64_t base, uint64_t page_size, const struct dt_run *runs, size_t n);
// Touches every page, as a load or a store would: 0, -EACCES or -EFAULT as above, also for the end of a file; or
// -errno.
int dt_try_touch(const struct dt_touch *touch, uint64_t start, uint64_t stop);

#pragma GCC visibility pop
