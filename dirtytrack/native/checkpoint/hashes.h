// What each block held when last committed, as a hash: a block that holds it again is not stored again.
//
// There is one table, which says what the file that is being written will hold, and a log of what stood in it before.
// When the file is committed the log is forgotten; when it fails the log is played back. Neither can fail. The hash of
// a block of zeros is zeros: an untouched table says what a reader finds where no file holds anything, and takes no
// memory.
#pragma once

#include <stdbool.h>

#include "block.h"
#include "siphash.h"

#pragma GCC visibility push(hidden)

struct dt_former {
	uint64_t place; // in the table
	struct dt_hash hash;
};

// One thread's at a time; all zero at first.
struct dt_hashes {
	uint64_t key[2];       // random: who knows it could make a change that goes unnoticed
	size_t regions;        // so many
	uint64_t *starts;      // of each, the place of its first block in the table; and the table's length; owned
	uint64_t *sizes;       // of each, in bytes; owned
	struct dt_hash *table; // owned
	bool is_used;          // something is there that is not zeros, or was
	struct dt_former *log; // owned
	size_t log_room;
	size_t log_count;
};

// For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_hashes_new(size_t size);
void dt_hashes_free(void *hashes);
// Begins with regions of such sizes, in bytes, that are committed as zeros. -ENOMEM.
int dt_hashes_open(struct dt_hashes *hashes, const uint64_t *sizes, size_t regions);

// The block holds this, from here on. 1: it held something else before, 0: it did not; -ENOMEM.
int dt_hashes_set(struct dt_hashes *hashes, uint64_t region, uint64_t block, struct dt_hash hash);
// All blocks hold zeros, from here on. 0 or -ENOMEM.
int dt_hashes_clear(struct dt_hashes *hashes);
// What each region holds, from here on, is what the region at its place in another table held: the first so many blocks
// of it, and zeros behind them. Both hold what is committed, and have the same key.
void dt_hashes_follow(struct dt_hashes *hashes, const struct dt_hashes *before, const uint64_t *places,
		      const uint64_t *counts);
// What was set has been committed; or it will not be, and is as it was.
void dt_hashes_commit(struct dt_hashes *hashes);
void dt_hashes_abort(struct dt_hashes *hashes);

// The hashes of blocks that lie one behind the other and have so many bytes: the last one may be short.
void dt_hash_blocks(const struct dt_hashes *hashes, const uint8_t *data, uint64_t bytes, struct dt_hash *out);
// Blocks [first, stop) of a region whose first byte has this address are committed as memory has them. *found_ret grows
// by how many are not zeros. 0; or -errno, -EFAULT with the address of the first page that can't be read.
int dt_hashes_learn(struct dt_hashes *hashes, uint64_t region, uint64_t address, uint64_t first, uint64_t stop,
		    uint64_t *found_ret, uint64_t *refused_ret);

#pragma GCC visibility pop
