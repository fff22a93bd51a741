// Memory that goes with tracked addresses: a block for each aligned chunk of 512 pages of which something is held.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { DT_CHUNK_PAGES = 512 };

struct dt_chunk {
	uint64_t start;                     // the address of its first page
	uint64_t held[DT_CHUNK_PAGES / 64]; // a bit for each page
	void *block;                        // zeroed when the first page is held, freed with the last
};

struct dt_chunks {
	struct dt_chunk *chunks; // by address
	size_t count, room;
	size_t block_bytes;
	uint32_t page_shift;
};

// Holds the pages of [start, stop), those held already included. -ENOMEM: some may be held, and can be released.
int dt_chunks_hold(struct dt_chunks *chunks, uint64_t start, uint64_t stop);
// Releases those of the pages that are held. Needs no memory.
void dt_chunks_release(struct dt_chunks *chunks, uint64_t start, uint64_t stop);
void dt_chunks_free(struct dt_chunks *chunks);
// The index of the first chunk that ends above an address.
size_t dt_chunks_find(const struct dt_chunks *chunks, uint64_t address);
// The chunk that holds the page of an address; NULL: none does.
const struct dt_chunk *dt_chunks_holding(const struct dt_chunks *chunks, uint64_t address);
uint64_t dt_chunk_stop(const struct dt_chunks *chunks, const struct dt_chunk *chunk);
