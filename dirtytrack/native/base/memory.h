// The library's own memory. Nothing native lives in the malloc heap: a user who tracks a heap page must not track
// the tracker. Small blocks come from size classes cut out of private mappings, large ones are mappings.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Zeroed memory of at least bytes (> 0), or NULL. Large blocks cost only the pages that are touched.
void *dt_alloc(size_t bytes);
// Gives back what dt_alloc(bytes) returned; the same bytes must be named. NULL is ignored.
void dt_free(void *block, size_t bytes);

// The same for owners that don't remember the size, such as a garbage collector.
void *dt_block_new(size_t bytes);
void dt_block_free(void *block);

// Whether bytes (> 0) are all zeros.
int dt_is_zero(const uint8_t *data, size_t bytes);

// A number that names this address space: the same for the life of a process, another one in a forked child
// (also one made by a raw clone(2), which pthread_atfork misses). 0 if the kernel can't say.
uint64_t dt_address_space(void);
// Whether this still is the address space that was so named. Takes no lock.
int dt_is_address_space(uint64_t name);
