// Bitmaps of pages.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runs.h"

#pragma GCC visibility push(hidden)

// A bitmap of the pages from 0 on, with bounds, so that an empty one costs nothing to look at.
struct dt_bits {
	uint64_t *words; // owned by whoever made it: dt_bits_bytes(pages) of zeros at first
	uint64_t low;    // no page below it is set
	uint64_t high;   // no page from it on is set; no page at all if it is not above low
};

// The bytes that the words of a bitmap of so many pages take.
size_t dt_bits_bytes(uint64_t pages);
// Sets, or clears, the pages [start, stop).
void dt_bits_set(struct dt_bits *bits, uint64_t start, uint64_t stop);
void dt_bits_clear(struct dt_bits *bits, uint64_t start, uint64_t stop);
// Sets those of the pages [0, pages) whose counterparts, from page `first` of other bits on, are set.
void dt_bits_join(struct dt_bits *bits, const struct dt_bits *others, uint64_t first, uint64_t pages);
// Lists the set pages of [start, stop) in out, which has room for (stop - start + 1) / 2 runs; the number of runs.
size_t dt_bits_runs(const struct dt_bits *bits, uint64_t start, uint64_t stop, struct dt_run *out);

#pragma GCC visibility pop
