// XXH3 with 64 bits and without a seed, by Yann Collet: the checksum of everything in a file, of bytes that come piece
// by piece.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

struct dt_checksum {
	uint64_t lanes[8];
	uint64_t bytes;     // so far
	unsigned stripe;    // how many were added since the last scramble
	unsigned held;      // bytes in rest
	uint8_t rest[256];  // what was not added to the lanes yet
	uint8_t before[64]; // the stripe before it, if there is one
};

void dt_checksum_begin(struct dt_checksum *sum);
void dt_checksum_add(struct dt_checksum *sum, const uint8_t *data, size_t bytes);
// Of what was added so far.
uint64_t dt_checksum_value(const struct dt_checksum *sum);
// Of bytes that are all there.
uint64_t dt_checksum_of(const uint8_t *data, size_t bytes);

#pragma GCC visibility pop
