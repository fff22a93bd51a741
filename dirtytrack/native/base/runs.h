// Sorted lists of half-open runs: page sets, and lists of address ranges.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

// [start, stop): stop is exclusive. A list of runs is sorted, and its runs neither overlap nor touch.
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

// Appends a run to a list of n, whose last one it may touch or overlap, but not begin before; the new number of runs.
static inline size_t dt_runs_append(struct dt_run *runs, size_t n, struct dt_run run)
{
	if (!n || runs[n - 1].stop < run.start) {
		runs[n] = run;
		return n + 1;
	}
	if (runs[n - 1].stop < run.stop)
		runs[n - 1].stop = run.stop;
	return n;
}

// The part of a run within another one. Empty (start >= stop) if they have nothing in common.
static inline struct dt_run dt_run_clip(struct dt_run run, struct dt_run within)
{
	return (struct dt_run){
		run.start > within.start ? run.start : within.start,
		run.stop < within.stop ? run.stop : within.stop,
	};
}

#pragma GCC visibility pop
