// Where the bytes of a region lie: in memory, and on the region's pages.
#pragma once

#include <stdint.h>

#include "runs.h"

#pragma GCC visibility push(hidden)

// The bytes of one region, which need not begin or end on a page.
struct dt_extent {
	uint64_t region;    // its identifier
	uint64_t address;   // of its first byte
	uint64_t nbytes;    // more than 0
	uint64_t offset;    // of its first byte, from the start of the region's first page
	uint64_t page_size; // bytes
	uint64_t fallible;  // 1: a touch may fail though it is permitted (beyond the end of a file), else 0
};

// The bytes of an extent that lie in [span.start, span.stop), which are offsets from the start of the region's first
// page; counted from the extent's first byte. Where there are none, start equals stop.
struct dt_run dt_extent_clip(const struct dt_extent *extent, struct dt_run span);
// The same for a run of the region's pages.
struct dt_run dt_extent_bytes(const struct dt_extent *extent, struct dt_run pages);
// The other way round: the pages that some bytes (at least one) lie on.
struct dt_run dt_extent_pages_of(const struct dt_extent *extent, struct dt_run bytes);
// How many of the region's pages the extent touches, counted from the region's first one.
uint64_t dt_extent_pages(const struct dt_extent *extent);

#pragma GCC visibility pop
