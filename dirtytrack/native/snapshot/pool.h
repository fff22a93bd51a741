// Things of one size, such as the contents of pages, by number; each goes when nobody has it any more. They are never
// moved. Number 0 is none. One thread at a time.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

struct dt_pool {
	uint64_t unit;    // bytes of a thing
	uint8_t **chunks; // of things, by number; owned, as all the arrays are
	size_t chunk_room;
	uint32_t *in_use; // things of each chunk that are
	size_t in_use_room;
	uint32_t *references; // by number: how many have it; 0: free
	size_t reference_room;
	uint32_t *free; // free_count numbers, in any order
	size_t free_room;
	size_t free_count;
	uint32_t count; // of numbers, in all chunks
	uint64_t used;  // things in use
};

// Says of how many bytes each is; an empty pool is all zeros. And its end.
void dt_pool_open(struct dt_pool *pool, uint64_t unit);
void dt_pool_close(struct dt_pool *pool);
// Bytes of memory that is in use.
uint64_t dt_pool_bytes(const struct dt_pool *pool);
// Where a thing lies, which is aligned to 64 bytes if its size is.
void *dt_pool_at(const struct dt_pool *pool, uint32_t number);
// A free number, with undefined contents; the caller has it. 0 or -ENOMEM.
int dt_pool_take(struct dt_pool *pool, uint32_t *number_ret);
// One more has it, and one less; 0 is ignored. Whether it is had once only.
void dt_pool_share(struct dt_pool *pool, uint32_t number);
void dt_pool_drop(struct dt_pool *pool, uint32_t number);
bool dt_pool_is_own(const struct dt_pool *pool, uint32_t number);

#pragma GCC visibility pop
