// Sorted lists of half-open runs, and bitmaps: the arithmetic of page sets.
#pragma once

#include <stddef.h>
#include <stdint.h>

// [start, stop). A list of runs is sorted, and its runs neither overlap nor touch.
struct dt_run {
	uint64_t start;
	uint64_t stop;
};

// A set operation is its truth table: bit (2 * in_a + in_b) says whether such a page is in the result.
enum dt_set_operation {
	DT_AND = 8,
	DT_SUB = 4,
	DT_XOR = 6,
	DT_OR = 14,
};

// Combines two lists into out, which has room for na + nb runs and is neither of them; returns the number of runs.
size_t dt_runs_combine(int operation, const struct dt_run *a, size_t na, const struct dt_run *b, size_t nb,
		       struct dt_run *out);
// The number of pages in a list.
uint64_t dt_runs_count(const struct dt_run *runs, size_t n);
// Whether a page is in a list.
int dt_runs_contain(const struct dt_run *runs, size_t n, uint64_t page);
// Writes one byte a page, 1 for the pages in the list and 0 for the others of [0, pages).
void dt_runs_mask(const struct dt_run *runs, size_t n, uint64_t pages, uint8_t *out);

// A bitmap of pages, with bounds: nothing outside [low, high) is set.
struct dt_bits {
	uint64_t *words;
	uint64_t low;
	uint64_t high;
};

// The bytes that the words of a bitmap of so many pages take.
size_t dt_bits_bytes(uint64_t pages);
void dt_bits_set(struct dt_bits *bits, uint64_t start, uint64_t stop);
void dt_bits_clear(struct dt_bits *bits, uint64_t start, uint64_t stop);
// Lists the set pages of [start, stop) in out, which has room for (stop - start + 1) / 2 runs.
size_t dt_bits_runs(const struct dt_bits *bits, uint64_t start, uint64_t stop, struct dt_run *out);
