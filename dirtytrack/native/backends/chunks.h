// Memory that goes with tracked addresses: a block for each aligned chunk of 512 pages of which something is held. What
// is looked up by address is found by a search among the chunks; what is known of a page has a fixed place in a block.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../base/runs.h"

#pragma GCC visibility push(hidden)

enum { DT_CHUNK_PAGES = 512 }; // of the system's size: what one page table has, where pages have 4 KiB

struct dt_chunk {
	uint64_t start;                     // the address of its first page, a multiple of the chunk's bytes
	uint64_t held[DT_CHUNK_PAGES / 64]; // a bit for each page
	void *block;                        // owned; zeroed when the first page is held, freed with the last
};

struct dt_chunks {
	struct dt_chunk *chunks; // count of them, by address, each with a page that is held; owned
	size_t count;
	size_t room;
	size_t block_bytes;  // of each block
	uint32_t page_shift; // log2 of the bytes of the system's page
};

// Holds the pages of [start, stop), those held already included. -ENOMEM: some may be held, and can be released.
int dt_chunks_hold(struct dt_chunks *chunks, uint64_t start, uint64_t stop);
// Releases those of the pages that are held. Needs no memory.
void dt_chunks_release(struct dt_chunks *chunks, uint64_t start, uint64_t stop);
// Frees all chunks and blocks.
void dt_chunks_free(struct dt_chunks *chunks);
// The index of the first chunk that ends above an address; count if none does.
size_t dt_chunks_find(const struct dt_chunks *chunks, uint64_t address);
// The chunk that holds the page of an address; NULL: none does.
const struct dt_chunk *dt_chunks_holding(const struct dt_chunks *chunks, uint64_t address);
// The addresses of a chunk, held or not.
struct dt_run dt_chunk_range(const struct dt_chunks *chunks, const struct dt_chunk *chunk);

#pragma GCC visibility pop
