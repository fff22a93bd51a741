// Run lists and bitmaps, against plain arrays.
#include "base/bits.h"
#include "driver.h"

enum { UNIVERSE = 200 };

static size_t runs_of(const bool *set, struct dt_run *out)
{
	size_t n = 0;
	for (uint64_t page = 0; page < UNIVERSE; page++) {
		if (!set[page])
			continue;
		if (n && out[n - 1].stop == page)
			out[n - 1].stop++;
		else
			out[n++] = (struct dt_run){page, page + 1};
	}
	return n;
}

static bool same(const struct dt_run *a, size_t na, const struct dt_run *b, size_t nb)
{
	return na == nb && (na == 0 || memcmp(a, b, na * sizeof *a) == 0);
}

void try_run_lists(uint64_t *random)
{
	static const int operations[] = {DT_AND, DT_SUB, DT_XOR, DT_OR};
	bool a[UNIVERSE], b[UNIVERSE], wanted[UNIVERSE];
	uint64_t density_a = 1 + draw(random, 16), density_b = 1 + draw(random, 16);
	for (int page = 0; page < UNIVERSE; page++) {
		a[page] = draw(random, 16) < density_a;
		b[page] = draw(random, 16) < density_b;
	}
	struct dt_run left[UNIVERSE], right[UNIVERSE], expected[UNIVERSE];
	size_t na = runs_of(a, left), nb = runs_of(b, right);
	for (int i = 0; i < 4; i++) {
		uint64_t count = 0;
		for (int page = 0; page < UNIVERSE; page++)
			count += wanted[page] = operations[i] >> (2 * a[page] + b[page]) & 1;
		size_t n = runs_of(wanted, expected);
		// On the heap: no run beyond the promised room.
		struct dt_run *out = dt_alloc((na + nb + 1) * sizeof *out);
		check(out);
		check(same(out, dt_runs_combine(operations[i], left, na, right, nb, out), expected, n));
		check(dt_runs_count(out, n) == count);
		uint8_t mask[UNIVERSE];
		dt_runs_mask(out, n, UNIVERSE, mask);
		for (int page = 0; page < UNIVERSE; page++) {
			check(mask[page] == wanted[page]);
			check(!!dt_runs_contain(out, n, (uint64_t)page) == wanted[page]);
		}
		dt_free(out, (na + nb + 1) * sizeof *out);
	}
}

void try_bitmap(uint64_t *random)
{
	bool model[UNIVERSE] = {0};
	struct dt_bits bits = {.words = dt_alloc(dt_bits_bytes(UNIVERSE))};
	check(bits.words);
	for (int step = 0; step < 20; step++) {
		uint64_t start = draw(random, UNIVERSE), stop = start + draw(random, UNIVERSE + 1 - start);
		bool set = draw(random, 2);
		(set ? dt_bits_set : dt_bits_clear)(&bits, start, stop);
		for (uint64_t page = start; page < stop; page++)
			model[page] = set;
		uint64_t from = draw(random, UNIVERSE), to = from + draw(random, UNIVERSE + 1 - from);
		bool part[UNIVERSE] = {0};
		memcpy(part + from, model + from, to - from);
		struct dt_run expected[UNIVERSE];
		size_t n = runs_of(part, expected), room = (to - from + 1) / 2;
		struct dt_run *out = dt_alloc(room * sizeof *out + 1);
		check(out);
		check(same(out, dt_bits_runs(&bits, from, to, out), expected, n));
		dt_free(out, room * sizeof *out + 1);
	}
	dt_free(bits.words, dt_bits_bytes(UNIVERSE));
}
