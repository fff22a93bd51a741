// Blocks of live memory that were copied, on their way into a file.
#pragma once

#include <stdbool.h>

#include "block.h"
#include "hashes.h"

#pragma GCC visibility push(hidden)

enum {
	DT_GROUP = DT_SIPHASH_LANES, // blocks that are hashed at once, and then lie in the processor's cache
	DT_PER_BLOCK_NS = 2500, // to compare, hash and sum one that lies in no cache, by a processor without vectors
};

// Blocks that lie one behind the other, DT_BLOCK bytes for each.
struct dt_captured {
	const struct dt_block_run *runs; // what they are: these, in ascending order, ...
	uint64_t skip;                   // ... without so many blocks of the first one
	uint8_t *data;
	uint64_t blocks;
	bool everything;        // all are stored but zeros, in place where their region is linear; else what is new
	struct dt_hash *hashes; // of each block, as dt_captured_hash has them; NULL: it was not asked
};

// One of them.
struct dt_captured_block {
	uint64_t region;
	uint64_t number;
	uint8_t *data;
	uint64_t bytes;
	uint32_t encoding; // that it is to have
	struct dt_hash hash;
};

// A walk over them, group by group.
struct dt_captured_walk {
	const struct dt_captured *batch;
	const struct dt_block_run *run;
	uint64_t skip; // blocks of the run
	uint64_t done; // of the batch
};

struct dt_captured_walk dt_captured_walk(const struct dt_captured *batch);
// The next blocks, of regions of such sizes, at most a group. 0: there are no more. Their bytes lie one behind the
// other.
size_t dt_captured_next(struct dt_captured_walk *walk, const uint64_t *sizes, struct dt_captured_block group[DT_GROUP]);
// The hashes of a group.
void dt_captured_hash_group(const struct dt_hashes *hashes, const struct dt_captured_block *group, size_t n,
			    struct dt_hash *out);
// Hashes the blocks of a batch, into its hashes: what can be done by another thread than the one that adds it.
void dt_captured_hash(const struct dt_hashes *hashes, const struct dt_captured *batch);

#pragma GCC visibility pop
