#include <string.h>

#include "heat.h"

// What is known of a page, in a byte.
enum {
	COLD = 0,      // armed, and not found written by the last scan
	CANDIDATE = 2, // armed, and found written by so many scans in a row; at the next one it is opened
	TESTED = 8,    // armed after it was open; + its level
	OPEN = 64,     // not armed; + AGES * its level + the scans since it was opened
	AGES = 32,
	TOP_LEVEL = 4, // a page is tested after 2 << level scans: 2, 4, 8, 16, 32
	LONGEST_HOLD = 64,
};

static uint8_t level_of(uint8_t state)
{
	return state >= OPEN ? (state - OPEN) / AGES : state - TESTED;
}

// A page that was found written: what it becomes. It stays open, or is opened, if that is OPEN or more.
static uint8_t heated(uint8_t state)
{
	if (state < CANDIDATE)
		return state + 1;
	if (state == CANDIDATE)
		return OPEN;
	if (state < OPEN)
		return OPEN + AGES * (level_of(state) < TOP_LEVEL ? level_of(state) + 1 : TOP_LEVEL);
	uint8_t level = level_of(state);
	return (state - OPEN) % AGES + 1 < 2 << level ? state + 1 : TESTED + level;
}

// The same where it was armed with all others.
static uint8_t armed(uint8_t state)
{
	return state >= OPEN ? TESTED + level_of(state) : state < CANDIDATE ? state + 1 : state;
}

size_t dt_run_append(struct dt_run *out, size_t n, struct dt_run run)
{
	if (!n || out[n - 1].stop < run.start) {
		out[n] = run;
		return n + 1;
	}
	if (out[n - 1].stop < run.stop)
		out[n - 1].stop = run.stop;
	return n;
}

static uint64_t address_of(const struct dt_part *part, size_t page)
{
	return part->chunk->start + ((uint64_t)page << part->page_shift);
}

struct dt_run dt_part_range(const struct dt_part *part)
{
	return (struct dt_run){address_of(part, part->first), address_of(part, part->last)};
}

static struct dt_run clip(const struct dt_part *part, const struct dt_run *run)
{
	struct dt_run range = dt_part_range(part);
	return (struct dt_run){run->start > range.start ? run->start : range.start,
			       run->stop < range.stop ? run->stop : range.stop};
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
				n = dt_run_append(out, n, page_run(part, page));
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
				n = dt_run_append(out, n, page_run(part, page));
	return n;
}

static void count(struct dt_heat *heat, uint8_t state)
{
	heat->open += state >= OPEN;
	heat->candidates += state >= CANDIDATE && state < OPEN;
	heat->tested += state >= TESTED && state < OPEN;
	heat->is_warm |= state != COLD;
}

// Gives every page of the part its next state: written pages by the function; the others become cold.
static void update(const struct dt_part *part, uint8_t (*next)(uint8_t))
{
	struct dt_heat *heat = part->heat;
	if (!heat->is_warm && part->runs == part->end)
		return;
	size_t tested = heat->tested, confirmed = 0, written = 0, done = part->first;
	heat->open = heat->candidates = heat->tested = heat->is_warm = 0;
	for (size_t page = 0; page < part->first; page++)
		count(heat, heat->pages[page]);
	for (size_t page = part->last; page < DT_CHUNK_PAGES; page++)
		count(heat, heat->pages[page]);
	for (const struct dt_run *run = part->runs; run < part->end; run++) {
		memset(heat->pages + done, COLD, page_at(part, clip(part, run).start) - done);
		for_each_page(page, part, run) {
			confirmed += heat->pages[page] >= TESTED && heat->pages[page] < OPEN;
			count(heat, heat->pages[page] = next(heat->pages[page]));
			written++;
		}
		done = page_at(part, clip(part, run).stop);
	}
	memset(heat->pages + done, COLD, part->last - done);
	if (tested)
		heat->unconfirmed = (uint8_t)((heat->unconfirmed + 255 * (tested - confirmed) / tested) / 2);
	if (2 * heat->candidates < written) // where writes are random, some pages are written twice: not worth a look
		heat->candidates = 0;
}

void dt_heat_armed(const struct dt_part *part)
{
	update(part, armed);
	part->heat->hold -= part->heat->hold > 0;
}

void dt_heat_left_open(const struct dt_part *part)
{
	update(part, heated);
	if (part->heat->open)
		part->heat->next_hold = 0;
}

void dt_heat_hold(struct dt_heat *heat)
{
	heat->next_hold = heat->next_hold < LONGEST_HOLD / 2 ? 2 * heat->next_hold + 4 : LONGEST_HOLD;
	heat->hold = heat->next_hold;
}

bool dt_heat_looks_first(const struct dt_heat *heat)
{
	return heat->open || (heat->candidates && !heat->hold);
}
