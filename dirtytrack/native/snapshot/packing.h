// Where changes lie, in few bytes. docs/snapshot.md has the format.
#pragma once

#include "changes.h"

#pragma GCC visibility push(hidden)

// Writes n changes, which are sorted, to `out`; NULL: nowhere. How many bytes they take.
uint64_t dt_pack(const struct dt_change *changes, size_t n, uint8_t *out);
// Reads the changes of regions of these sizes, of which each has so many, from packed[0, nbytes). *bytes_ret: how many
// bytes of contents they have. How many bytes were read, or 0: they are no such changes.
uint64_t dt_unpack(const uint8_t *packed, uint64_t nbytes, const uint64_t *sizes, const uint64_t *counts,
		   size_t regions, struct dt_change *changes, uint64_t *bytes_ret);
// Makes out[i] = a[i] ^ b[i]; out may be one of them.
void dt_xor(uint8_t *out, const uint8_t *a, const uint8_t *b, uint64_t nbytes);

#pragma GCC visibility pop
