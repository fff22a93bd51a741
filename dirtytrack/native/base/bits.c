// Bitmaps of pages.
#include "bits.h"

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
	start = start > bits->low ? start : bits->low;
	stop = stop < bits->high ? stop : bits->high;
	if (start >= stop)
		return;
	for (uint64_t i = start / 64; i <= (stop - 1) / 64; i++)
		bits->words[i] &= ~bits_within(i, start, stop);
	if (start == bits->low)
		bits->low = stop;
	else if (stop == bits->high)
		bits->high = start;
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

void dt_bits_join(struct dt_bits *bits, const struct dt_bits *others, uint64_t first, uint64_t pages)
{
	uint64_t at = others->low > first ? others->low : first;
	uint64_t stop = others->high < first + pages ? others->high : first + pages;
	while ((at = next_set(others->words, 0, at, stop)) < stop) {
		uint64_t end = next_set(others->words, ~0ULL, at, stop);
		dt_bits_set(bits, at - first, end - first);
		at = end;
	}
}
