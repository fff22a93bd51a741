// The unit on disk.
#pragma once

#include <stdint.h>

// Whatever the page size: bytes of a region from its own first byte. The last block of a region may be shorter.
enum { DT_BLOCK = 4096 };

// Blocks [first, first + count) of a region.
struct dt_block_run {
	uint64_t extent; // the place of its extent; in a file, of its region in the table
	uint64_t first;
	uint64_t count;
};

// The bytes that blocks [first, first + count) of a region of so many bytes have: its last one may be short.
static inline uint64_t dt_block_bytes(uint64_t nbytes, uint64_t first, uint64_t count)
{
	uint64_t stop = (first + count) * DT_BLOCK;
	return (stop < nbytes ? stop : nbytes) - first * DT_BLOCK;
}

// How many blocks a region of so many bytes has.
static inline uint64_t dt_block_count(uint64_t nbytes)
{
	return nbytes / DT_BLOCK + (nbytes % DT_BLOCK != 0);
}
