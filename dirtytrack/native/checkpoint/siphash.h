// SipHash-2-4 with 128 bits of output, by Jean-Philippe Aumasson and Daniel J. Bernstein: who does not know the key
// can't make two contents with one hash.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

struct dt_hash {
	uint64_t low; // the first eight bytes of the output, as a little-endian number
	uint64_t high;
};

// The key's two halves are little-endian numbers, too.
struct dt_hash dt_siphash(const uint64_t key[2], const uint8_t *data, size_t bytes);

enum { DT_SIPHASH_LANES = 8 }; // inputs that are worth to be given at once, where the processor has such vectors

// The same of n inputs of so many bytes each, one behind the other. They take less time than one by one where the bytes
// are a multiple of 64.
void dt_siphash_all(const uint64_t key[2], const uint8_t *data, size_t bytes, size_t n, struct dt_hash *hashes);

#pragma GCC visibility pop
