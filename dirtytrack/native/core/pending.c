// Bitmaps of cursors.
#include "pending.h"

#include <errno.h>

#include "../base/array.h"
#include "../base/memory.h"

static uint32_t slot_of(const struct dt_region *region)
{
	return (uint32_t)region->id;
}

struct dt_cursor *dt_find_cursor(const struct dt_cursors *cursors, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	return slot < cursors->room && cursors->slots[slot].id == id ? &cursors->slots[slot] : NULL;
}

static int make_bits(struct dt_bits **bits, size_t *room, const struct dt_region *region)
{
	int error = dt_grow(bits, room, slot_of(region) + (size_t)1, sizeof **bits);
	if (error)
		return error;
	struct dt_bits *fresh = &(*bits)[slot_of(region)];
	fresh->words = dt_alloc(dt_bits_bytes(dt_region_pages(region)));
	return fresh->words ? 0 : -ENOMEM;
}

// Memory may have run out before there was room for the region.
static void free_bits(struct dt_bits *bits, size_t room, const struct dt_region *region)
{
	if (slot_of(region) >= room)
		return;
	dt_free(bits[slot_of(region)].words, dt_bits_bytes(dt_region_pages(region)));
	bits[slot_of(region)] = (struct dt_bits){0};
}

int dt_make_pending(struct dt_cursor *cursor, const struct dt_region *region, bool assumes)
{
	int error = make_bits(&cursor->pending, &cursor->pending_room, region);
	return error || !assumes ? error : make_bits(&cursor->assumed, &cursor->assumed_room, region);
}

void dt_free_pending(struct dt_cursor *cursor, const struct dt_region *region)
{
	free_bits(cursor->pending, cursor->pending_room, region);
	free_bits(cursor->assumed, cursor->assumed_room, region);
}

void dt_free_cursor(struct dt_cursor *cursor, uint32_t page_shift)
{
	dt_free(cursor->assumed, cursor->assumed_room * sizeof *cursor->assumed);
	dt_free(cursor->pending, cursor->pending_room * sizeof *cursor->pending);
	dt_free_samples(&cursor->samples, page_shift);
	*cursor = (struct dt_cursor){0};
}

void dt_free_cursors(struct dt_cursors *cursors)
{
	dt_free(cursors->slots, cursors->room * sizeof *cursors->slots);
	*cursors = (struct dt_cursors){0};
}

struct dt_bits *dt_pending(const struct dt_cursor *cursor, const struct dt_region *region)
{
	return &cursor->pending[slot_of(region)];
}

struct dt_bits *dt_assumed(const struct dt_cursor *cursor, const struct dt_region *region)
{
	return cursor->assumed ? &cursor->assumed[slot_of(region)] : NULL;
}

void dt_set_runs(struct dt_bits *bits, const struct dt_region *region, const struct dt_run *runs, size_t n)
{
	const struct dt_run whole = {region->start, region->stop};
	for (size_t i = 0; i < n; i++) {
		struct dt_run run = dt_run_clip(runs[i], whole);
		if (run.start < run.stop)
			dt_bits_set(bits, (run.start - region->start) >> region->page_shift,
				    (run.stop - region->start) >> region->page_shift);
	}
}

void dt_feed_region(const struct dt_cursors *cursors, const struct dt_region *region, const struct dt_run *runs,
		    size_t n, const struct dt_cursor *except)
{
	for_each_cursor(cursor, cursors) if (cursor != except) dt_set_runs(dt_pending(cursor, region), region, runs, n);
}
