// The library's own memory. Nothing native lives in the malloc heap: a user who tracks a heap page must not track
// the tracker. Small blocks come from size classes cut out of private mappings, large ones are mappings. Every function
// may be called from any thread, also in a forked child.
#pragma once

#include <stddef.h>

#pragma GCC visibility push(hidden)

// Zeroed memory of at least bytes (> 0), for the caller to free; NULL without memory. Large blocks cost only the pages
// that are touched.
void *dt_alloc(size_t bytes);
// Gives back what dt_alloc(bytes) returned; the same bytes must be named. NULL is ignored.
void dt_free(void *block, size_t bytes);

// The same for owners that don't remember the size: for cffi's ffi.new_allocator, which passes it when it allocates
// only.
void *dt_block_new(size_t bytes);
void dt_block_free(void *block);

#pragma GCC visibility pop
