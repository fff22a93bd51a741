// XXH64 with seed 0, by Yann Collet: the checksum of everything in a file, of bytes that come piece by piece.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct dt_checksum {
	uint64_t lanes[4];
	uint64_t bytes;   // so far
	uint8_t rest[32]; // what does not fill a stripe yet: bytes % 32 of them
};

void dt_checksum_begin(struct dt_checksum *sum);
void dt_checksum_add(struct dt_checksum *sum, const uint8_t *data, size_t bytes);
// Of what was added so far.
uint64_t dt_checksum_value(const struct dt_checksum *sum);
