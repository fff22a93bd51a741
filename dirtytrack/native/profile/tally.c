// Loops over the pages of run lists.
#include "tally.h"

#include "../base/patience.h"

static void add(uint32_t *count, uint64_t pages)
{
	*count = pages > UINT32_MAX - *count ? UINT32_MAX : *count + (uint32_t)pages;
}

void dt_tally(const struct dt_run *runs, size_t n, uint32_t shift, uint32_t *counts)
{
	dt_takes(dt_runs_count(runs, n) + 8 * n);
	for (size_t i = 0; i < n; i++) {
		for (uint64_t page = runs[i].start; page < runs[i].stop;) {
			uint64_t cell = page >> shift, next = (cell + 1) << shift;
			uint64_t stop = next < runs[i].stop ? next : runs[i].stop;
			add(&counts[cell], stop - page);
			page = stop;
		}
	}
}

uint64_t dt_tally_new(const struct dt_run *runs, size_t n, uint64_t *words)
{
	uint64_t fresh = 0;
	for (size_t i = 0; i < n; i++) {
		for (uint64_t page = runs[i].start; page < runs[i].stop;) {
			uint64_t first = page % 64, count = 64 - first;
			if (count > runs[i].stop - page)
				count = runs[i].stop - page;
			uint64_t bits = (count == 64 ? ~0ULL : (1ULL << count) - 1) << first;
			uint64_t *word = &words[page / 64], missing = bits & ~*word;
			if (missing) { // mostly there is none, and to count takes longer than all the rest
				fresh += (uint64_t)__builtin_popcountll(missing);
				*word |= missing;
			}
			page += count;
		}
	}
	return fresh;
}
