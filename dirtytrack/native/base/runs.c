#include <stdbool.h>
#include <string.h>

#include "runs.h"

// A run list is also a sorted list of boundaries, at each of which membership flips.
size_t dt_runs_combine(int operation, const struct dt_run *a, size_t na, const struct dt_run *b, size_t nb,
		       struct dt_run *out)
{
	const uint64_t *left = (const uint64_t *)a, *left_end = left + 2 * na;
	const uint64_t *right = (const uint64_t *)b, *right_end = right + 2 * nb;
	uint64_t *to = (uint64_t *)out;
	unsigned inside = 0; // 2 * in_a + in_b
	bool inside_result = false;

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
	memset(out, 0, pages);
	for (size_t i = 0; i < n; i++)
		memset(out + runs[i].start, 1, runs[i].stop - runs[i].start);
}

size_t dt_bits_bytes(uint64_t pages)
{
	return (pages + 63) / 64 * sizeof(uint64_t);
}

// The bits of word number index that lie in [start, stop).
static uint64_t bits_within(uint64_t index, uint64_t start, uint64_t stop)
{
	uint64_t bits = ~0ULL, first = index * 64;
	if (start > first)
		bits &= ~0ULL << (start - first);
	if (stop < first + 64)
		bits &= ~0ULL >> (first + 64 - stop);
	return bits;
}

void dt_bits_set(struct dt_bits *bits, uint64_t start, uint64_t stop)
{
	if (start >= stop)
		return;
	for (uint64_t i = start / 64; i <= (stop - 1) / 64; i++)
		bits->words[i] |= bits_within(i, start, stop);
	if (bits->low >= bits->high) {
		bits->low = start;
		bits->high = stop;
		return;
	}
	if (start < bits->low)
		bits->low = start;
	if (stop > bits->high)
		bits->high = stop;
}

void dt_bits_clear(struct dt_bits *bits, uint64_t start, uint64_t stop)
{
	uint64_t first = start > bits->low ? start : bits->low;
	uint64_t last = stop < bits->high ? stop : bits->high;
	if (first >= last)
		return;
	for (uint64_t i = first / 64; i <= (last - 1) / 64; i++)
		bits->words[i] &= ~bits_within(i, first, last);
	if (first == bits->low)
		bits->low = last;
	else if (last == bits->high)
		bits->high = first;
}

// The first page of [at, stop) whose bit, after flipping, is set; stop if there is none.
static uint64_t next_set(const uint64_t *words, uint64_t flip, uint64_t at, uint64_t stop)
{
	if (at >= stop)
		return stop;
	uint64_t first = at / 64 * 64;
	uint64_t word = (words[at / 64] ^ flip) & (~0ULL << (at - first));
	while (!word) {
		first += 64;
		if (first >= stop)
			return stop;
		word = words[first / 64] ^ flip;
	}
	uint64_t found = first + (uint64_t)__builtin_ctzll(word);
	return found < stop ? found : stop;
}

size_t dt_bits_runs(const struct dt_bits *bits, uint64_t start, uint64_t stop, struct dt_run *out)
{
	size_t n = 0;
	if (start < bits->low)
		start = bits->low;
	if (stop > bits->high)
		stop = bits->high;
	for (uint64_t at = start; (at = next_set(bits->words, 0, at, stop)) < stop; at = out[n - 1].stop) {
		out[n].start = at;
		out[n].stop = next_set(bits->words, ~0ULL, at, stop);
		n++;
	}
	return n;
}
