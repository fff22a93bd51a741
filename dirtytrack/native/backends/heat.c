// The state of each page of a chunk, in a byte, and how a scan changes it.
//
//	state              armed?  the last scans found it ...
//	COLD (0)           yes     not written
//	1                  yes     written, once
//	CANDIDATE (2)      yes     written, twice in a row or more
//	OPEN + level, age  no      (written: a scan can't tell) it has been open for age + 1 scans
//	TESTED + level     yes     open before; it was armed to see whether it is written still
//
// A scan that finds a page written and may leave pages open moves it along (heated):
//
//	COLD -> 1 -> CANDIDATE -> OPEN at level 0
//	OPEN: one age older; at the age of 2 << level scans it is armed, and TESTED at its level
//	TESTED -> OPEN one level higher, at age 0: it was written, so the next test can wait twice as long
//
// So a page that is written in every scan costs a fault in three of them, is opened, and costs one more in the 3rd,
// 8th, 17th, 34th, ... scan after that. One that is written for a while and then no more is reported in vain for about
// as many scans as it was written in, at most: that is why the levels double. Never for more than 32: that is why they
// end.
//
// A scan that finds a page written and arms everything, because that is cheaper or was asked for, moves it less
// (armed): open pages are TESTED at their level, and nothing is opened, so that a CANDIDATE and a TESTED page stay what
// they are.
//
// A scan that finds a page not written makes it COLD, whatever it was: all its history is forgotten. That is how a
// TESTED page cools down; an OPEN one is not found so, since the kernel reports what is not protected as written. The
// state is a guess at what the kernel knows: where a sparse region's memory was dropped, a page may be noted as armed
// that is not. A wrong guess costs time, and never a write: what is reported depends on the kernel alone.
//
// The counts of a chunk (open, candidates, tested) are what decides how the next scan goes about it:
//
//	- nothing is open and no page is a candidate: it arms everything in one pass, which costs what it ever did;
//	- else it looks, arming nothing, and then arms the cold runs one by one, if that costs less than the faults that
//	  leaving the hot ones open saves (settle in adaptive.c); else it arms everything, and the chunk is on hold: for
//	  4, 12, 28, 60 and then 64 scans, until leaving pages open pays again.
#include "heat.h"

#include <string.h>

enum {
	COLD = 0,
	CANDIDATE = 2,
	TESTED = 8, // + level
	OPEN = 64,  // + AGES * level + age
	AGES = 32,  // more than any age: the test of the top level comes after so many scans
	TOP_LEVEL = 4,
	LONGEST_HOLD = 64,
};

static unsigned level_of(uint8_t state)
{
	return state >= OPEN ? (unsigned)(state - OPEN) / AGES : (unsigned)(state - TESTED);
}

static unsigned age_of(uint8_t state)
{
	return (unsigned)(state - OPEN) % AGES;
}

static uint8_t tested_at(unsigned level)
{
	return (uint8_t)(TESTED + level);
}

static uint8_t open_at(unsigned level, unsigned age)
{
	return (uint8_t)(OPEN + AGES * level + age);
}

// A page that was found written: what it becomes. It stays open, or is opened, if that is OPEN or more.
static uint8_t heated(uint8_t state)
{
	if (state < CANDIDATE)
		return (uint8_t)(state + 1);
	if (state == CANDIDATE)
		return open_at(0, 0);
	unsigned level = level_of(state);
	if (state < OPEN)
		return open_at(level < TOP_LEVEL ? level + 1 : TOP_LEVEL, 0);
	unsigned age = age_of(state) + 1;
	return age < 2U << level ? open_at(level, age) : tested_at(level);
}

// The same where it was armed with all others.
static uint8_t armed(uint8_t state)
{
	if (state >= OPEN)
		return tested_at(level_of(state));
	return state < CANDIDATE ? (uint8_t)(state + 1) : state;
}

static uint64_t address_of(const struct dt_part *part, size_t page)
{
	return part->chunk->start + ((uint64_t)page << part->page_shift);
}

struct dt_run dt_part_range(const struct dt_part *part)
{
	return (struct dt_run){address_of(part, part->start), address_of(part, part->stop)};
}

static struct dt_run clip(const struct dt_part *part, const struct dt_run *run)
{
	return dt_run_clip(*run, dt_part_range(part));
}

size_t dt_part_runs(const struct dt_part *part, struct dt_run *out)
{
	size_t n = 0;
	for (const struct dt_run *run = part->runs; run < part->end; run++)
		out[n++] = clip(part, run);
	return n;
}

static size_t page_at(const struct dt_part *part, uint64_t address)
{
	return (address - part->chunk->start) >> part->page_shift;
}

// The pages of a run that are in the part.
#define for_each_page(page, part, run) \
	for (size_t page = page_at(part, clip(part, run).start); page < page_at(part, clip(part, run).stop); page++)

static struct dt_run page_run(const struct dt_part *part, size_t page)
{
	return (struct dt_run){address_of(part, page), address_of(part, page + 1)};
}

size_t dt_heat_assumed(const struct dt_part *part, struct dt_run *out)
{
	size_t n = 0;
	if (!part->heat->open)
		return 0;
	for (const struct dt_run *run = part->runs; run < part->end; run++)
		for_each_page(page, part, run)
			if (part->heat->pages[page] >= OPEN)
				n = dt_runs_append(out, n, page_run(part, page));
	return n;
}

size_t dt_heat_cold(const struct dt_part *part, struct dt_run *out, size_t *open_ret)
{
	size_t n = 0;
	*open_ret = 0;
	for (const struct dt_run *run = part->runs; run < part->end; run++)
		for_each_page(page, part, run)
			if (heated(part->heat->pages[page]) >= OPEN)
				++*open_ret;
			else
				n = dt_runs_append(out, n, page_run(part, page));
	return n;
}

// The counts of a chunk, while they are made anew.
struct counts {
	unsigned open;
	unsigned candidates;
	unsigned tested;
	bool is_warm;
};

static void count(struct counts *counts, uint8_t state)
{
	counts->open += state >= OPEN;
	counts->candidates += state >= CANDIDATE && state < OPEN;
	counts->tested += state >= TESTED && state < OPEN;
	counts->is_warm |= state != COLD;
}

static void set_counts(struct dt_heat *heat, const struct counts *counts)
{
	heat->open = (uint16_t)counts->open;
	heat->candidates = (uint16_t)counts->candidates;
	heat->tested = (uint16_t)counts->tested;
	heat->is_warm = counts->is_warm;
}

// Gives every page of the part its next state: written pages by the function; the others become cold.
static void update(const struct dt_part *part, uint8_t (*next)(uint8_t))
{
	struct dt_heat *heat = part->heat;
	if (!heat->is_warm && part->runs == part->end)
		return;
	struct counts counts = {0};
	size_t confirmed = 0, written = 0, done = part->start;
	for (size_t page = 0; page < part->start; page++)
		count(&counts, heat->pages[page]);
	for (size_t page = part->stop; page < DT_CHUNK_PAGES; page++)
		count(&counts, heat->pages[page]);
	for (const struct dt_run *run = part->runs; run < part->end; run++) {
		memset(heat->pages + done, COLD, page_at(part, clip(part, run).start) - done);
		for_each_page(page, part, run) {
			confirmed += heat->pages[page] >= TESTED && heat->pages[page] < OPEN;
			heat->pages[page] = next(heat->pages[page]);
			count(&counts, heat->pages[page]);
			written++;
		}
		done = page_at(part, clip(part, run).stop);
	}
	memset(heat->pages + done, COLD, part->stop - done);
	if (heat->tested) // before this scan
		heat->unconfirmed =
			(uint8_t)((heat->unconfirmed + 255 * (heat->tested - confirmed) / heat->tested) / 2);
	if (2 * counts.candidates < written) // where writes are random, some pages are written twice: not worth a look
		counts.candidates = 0;
	set_counts(heat, &counts);
}

void dt_heat_armed(const struct dt_part *part)
{
	struct dt_heat *heat = part->heat;
	update(part, armed);
	heat->hold = heat->hold ? (uint8_t)(heat->hold - 1) : 0;
}

void dt_heat_left_open(const struct dt_part *part)
{
	update(part, heated);
	if (part->heat->open)
		part->heat->next_hold = 0;
}

void dt_heat_hold(struct dt_heat *heat)
{
	heat->next_hold = (uint8_t)(heat->next_hold < LONGEST_HOLD / 2 ? 2 * heat->next_hold + 4 : LONGEST_HOLD);
	heat->hold = heat->next_hold;
}

bool dt_heat_looks_first(const struct dt_heat *heat)
{
	return heat->open || (heat->candidates && !heat->hold);
}
