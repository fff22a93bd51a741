// SipHash-2-4 with 128 bits of output, by Jean-Philippe Aumasson and Daniel J. Bernstein: who does not know the key
// can't make two contents with one hash.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct dt_hash {
	uint64_t low; // the first eight bytes of the output, as a little-endian number
	uint64_t high;
};

// The key's two halves are little-endian numbers, too.
struct dt_hash dt_siphash(const uint64_t key[2], const uint8_t *data, size_t bytes);
