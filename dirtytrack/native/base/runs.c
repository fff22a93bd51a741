// The arithmetic of run lists.
#include "runs.h"

#include <stdbool.h>
#include <string.h>

#include "patience.h"

// A run list is also a sorted list of boundaries, at each of which membership flips.
size_t dt_runs_combine(int operation, const struct dt_run *a, size_t na, const struct dt_run *b, size_t nb,
		       struct dt_run *out)
{
	const uint64_t *left = (const uint64_t *)a, *left_end = left + 2 * na;
	const uint64_t *right = (const uint64_t *)b, *right_end = right + 2 * nb;
	uint64_t *to = (uint64_t *)out;
	unsigned inside = 0; // 2 * in_a + in_b
	bool inside_result = false;
	dt_takes(4 * (na + nb));

	while (left < left_end || right < right_end) {
		uint64_t at = right == right_end || (left < left_end && *left < *right) ? *left : *right;
		if (left < left_end && *left == at) {
			inside ^= 2;
			left++;
		}
		if (right < right_end && *right == at) {
			inside ^= 1;
			right++;
		}
		bool wanted = operation >> inside & 1;
		if (wanted != inside_result) {
			*to++ = at;
			inside_result = wanted;
		}
	}
	return (size_t)(to - (uint64_t *)out) / 2;
}

uint64_t dt_runs_count(const struct dt_run *runs, size_t n)
{
	uint64_t pages = 0;
	for (size_t i = 0; i < n; i++)
		pages += runs[i].stop - runs[i].start;
	return pages;
}

int dt_runs_contain(const struct dt_run *runs, size_t n, uint64_t page)
{
	size_t low = 0, high = n; // the first run that ends above page is in [low, high]
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (runs[middle].stop > page)
			high = middle;
		else
			low = middle + 1;
	}
	return low < n && runs[low].start <= page;
}

void dt_runs_mask(const struct dt_run *runs, size_t n, uint64_t pages, uint8_t *out)
{
	dt_takes(pages / 16 + 8 * n);
	memset(out, 0, pages);
	for (size_t i = 0; i < n; i++)
		memset(out + runs[i].start, 1, runs[i].stop - runs[i].start);
}
