// Which segment holds each block, where several files of a chain hold some of them: the last one that does.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "../base/runs.h"
#include "block.h"

#pragma GCC visibility push(hidden)

// An owner is a number, from 1; a block that no segment holds is zeros, and has owner 0. What is never owned takes no
// memory. One thread's at a time while it is changed; all zero at first.
struct dt_owners {
	size_t regions;
	uint64_t *sizes;   // of each, in bytes; owned
	uint32_t **tables; // of each; NULL: all is zeros; owned
};

// The regions as one file lists them. Another file of the same state may list others, at other places.
struct dt_file_table {
	size_t regions;
	const uint64_t *sizes;  // of each, in bytes; the caller's
	const uint64_t *places; // of each, its place in the state; the caller's
	const uint64_t *counts; // of each, the first so many blocks may be blocks of the state; the caller's
};

// Memory for some blocks of a region: [first, stop), the first of which has the address. Nothing if stop is 0.
struct dt_target {
	uint64_t address;
	uint64_t first;
	uint64_t stop;
};

// For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_owners_new(size_t size);
void dt_owners_free(void *owners);
// Begins with regions of such sizes, in bytes, that are zeros. -ENOMEM.
int dt_owners_open(struct dt_owners *owners, const uint64_t *sizes, size_t regions);

// Takes runs from the bytes of a file, in their place. The index of the first one that does not lie in its region, or
// behind the one before it; n if all do, and then *bytes_ret is how many bytes their blocks have.
size_t dt_runs_load(const struct dt_file_table *table, struct dt_block_run *runs, size_t n, uint64_t *bytes_ret);

// The blocks of a file's runs belong to an owner, from here on. 0 or -ENOMEM, and then some do not.
int dt_owners_set(struct dt_owners *owners, const struct dt_file_table *table, const struct dt_block_run *runs,
		  size_t n, uint32_t owner);
// The owner of each of blocks [first, stop) of a region.
void dt_owners_get(const struct dt_owners *owners, uint64_t region, uint64_t first, uint64_t stop, uint32_t *out);
// The first run of blocks that have an owner among [first, stop) of a region. 0: there is none.
int dt_owners_next(const struct dt_owners *owners, uint64_t region, uint32_t owner, uint64_t first, uint64_t stop,
		   struct dt_run *found_ret);

// How many of the blocks of a file's runs an owner owns for which there is a target.
uint64_t dt_owned(const struct dt_owners *owners, const struct dt_file_table *table, uint32_t owner,
		  const struct dt_block_run *runs, size_t n, const struct dt_target *targets);
// Writes these blocks to their targets, from the bytes of all blocks of the runs. 0; or -errno, -EFAULT with the
// address of the first page that can't be written.
int dt_place(const struct dt_owners *owners, const struct dt_file_table *table, uint32_t owner,
	     const struct dt_block_run *runs, size_t n, const struct dt_target *targets, const uint8_t *data,
	     uint64_t *refused_ret);
// Makes the bytes [start, stop) of a region zeros where their blocks have owner 0, in memory where its first byte has
// the address.
// What holds zeros already is not written. Errors as above, also of what can't be read.
int dt_place_zeros(const struct dt_owners *owners, uint64_t region, uint64_t address, uint64_t start, uint64_t stop,
		   uint64_t *refused_ret);

#pragma GCC visibility pop
