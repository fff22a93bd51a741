// The counts of a profile, against plain arrays.
#include "profile/tally.h"

#include "driver.h"

enum { TALLIED = 300 };

void try_tally(uint64_t *random)
{
	uint32_t shift = (uint32_t)draw(random, 8), expected[TALLIED] = {0};
	size_t cells = ((size_t)(TALLIED - 1) >> shift) + 1, words = (TALLIED + 63) / 64;
	// On the heap: no cell and no word beyond those that there are.
	uint32_t *counts = dt_alloc(cells * sizeof *counts);
	uint64_t *bits = dt_alloc(words * sizeof *bits);
	bool seen[TALLIED] = {0};
	check(counts && bits);
	for (int round = 0; round < 5; round++) {
		struct dt_run runs[TALLIED];
		size_t n = 0;
		uint64_t page = draw(random, 80), fresh = 0;
		while (page < TALLIED) {
			uint64_t stop = page + 1 + draw(random, 130);
			stop = stop < TALLIED ? stop : TALLIED;
			runs[n++] = (struct dt_run){page, stop};
			for (; page < stop; page++) {
				expected[page >> shift]++;
				fresh += !seen[page];
				seen[page] = true;
			}
			page = stop + 1 + draw(random, 80);
		}
		dt_tally(runs, n, shift, counts);
		check(dt_tally_new(runs, n, bits) == fresh);
		check(dt_tally_new(runs, n, bits) == 0);
		check(memcmp(counts, expected, cells * sizeof *counts) == 0);
	}
	for (uint64_t page = 0; page < TALLIED; page++)
		check((bits[page / 64] >> page % 64 & 1) == seen[page]);
	counts[0] = UINT32_MAX - 1;
	dt_tally(&(struct dt_run){0, 1}, 1, shift, counts);
	dt_tally(&(struct dt_run){0, 1}, 1, shift, counts);
	check(counts[0] == UINT32_MAX);
	dt_free(counts, cells * sizeof *counts);
	dt_free(bits, words * sizeof *bits);
}
