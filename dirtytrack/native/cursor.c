// Cursors: what each consumer has coming.
#include <errno.h>

#include "internal.h"

long dt_find_cursor(const struct dt_tracker *tracker, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	return slot < tracker->cursor_room && tracker->cursors[slot].id == id ? (long)slot : -DT_ECLOSED;
}

struct dt_bits *dt_pending(const struct dt_tracker *tracker, size_t cursor_slot, const struct dt_region *region)
{
	return &tracker->cursors[cursor_slot].pending[(uint32_t)region->id];
}

int dt_make_pending(struct dt_cursor *cursor, const struct dt_region *region)
{
	size_t slot = (uint32_t)region->id;
	int error = dt_grow(&cursor->pending, &cursor->pending_room, slot + 1, sizeof *cursor->pending);
	if (error)
		return error;
	cursor->pending[slot].words = dt_alloc(dt_bits_bytes(dt_region_pages(region)));
	return cursor->pending[slot].words ? 0 : -ENOMEM;
}

void dt_feed_cursor(struct dt_tracker *tracker, struct dt_region *region, const struct dt_run *runs, size_t n,
		    size_t slot)
{
	struct dt_bits *pending = dt_pending(tracker, slot, region);
	for (size_t i = 0; i < n; i++) {
		uint64_t start = runs[i].start > region->start ? runs[i].start : region->start;
		uint64_t stop = runs[i].stop < region->stop ? runs[i].stop : region->stop;
		if (start < stop)
			dt_bits_set(pending, (start - region->start) >> region->page_shift,
				    (stop - region->start) >> region->page_shift);
	}
}

void dt_feed_region(struct dt_tracker *tracker, struct dt_region *region, const struct dt_run *runs, size_t n,
		    long except)
{
	for (size_t slot = 0; slot < tracker->cursor_room; slot++)
		if (tracker->cursors[slot].id && (long)slot != except)
			dt_feed_cursor(tracker, region, runs, n, slot);
}

static void free_cursor(struct dt_tracker *tracker, struct dt_cursor *cursor)
{
	for (size_t i = 0; i < tracker->region_count; i++) {
		struct dt_region *region = tracker->regions[i];
		if ((uint32_t)region->id < cursor->pending_room)
			dt_free(cursor->pending[(uint32_t)region->id].words, dt_bits_bytes(dt_region_pages(region)));
	}
	dt_free(cursor->pending, cursor->pending_room * sizeof *cursor->pending);
	*cursor = (struct dt_cursor){0};
}

static int new_cursor(struct dt_tracker *tracker, struct dt_cursor **cursor_ret)
{
	size_t slot = 0;
	while (slot < tracker->cursor_room && tracker->cursors[slot].id)
		slot++;
	int error = dt_grow(&tracker->cursors, &tracker->cursor_room, slot + 1, sizeof *tracker->cursors);
	if (error)
		return error;
	struct dt_cursor *cursor = &tracker->cursors[slot];
	for (size_t i = 0; i < tracker->region_count && !error; i++)
		error = dt_make_pending(cursor, tracker->regions[i]);
	if (error) {
		free_cursor(tracker, cursor);
		return error;
	}
	*cursor_ret = cursor;
	return 0;
}

int dt_cursor_open(struct dt_tracker *tracker, uint64_t *cursor_ret)
{
	struct dt_cursor *cursor;
	int error = dt_enter(tracker);
	if (error)
		return error;
	error = new_cursor(tracker, &cursor);
	if (error)
		return dt_leave(tracker, error);
	for (size_t i = 0; i < tracker->region_count && !error; i++) {
		struct dt_region *region = tracker->regions[i];
		if (region->flags & DT_LOST)
			continue;
		// What was written so far belongs to the older cursors. A failure leaves more to them, not less.
		error = dt_harvest(tracker, region, region->start, region->stop);
		if (error == -EPERM) {
			dt_find_losses(tracker, region->start, region->stop);
			error = 0;
		}
	}
	if (error) {
		free_cursor(tracker, cursor);
		return dt_leave(tracker, error);
	}
	*cursor_ret = cursor->id = ++tracker->next_serial << 32 | (uint64_t)(cursor - tracker->cursors);
	return dt_leave(tracker, 0);
}

int dt_cursor_close(struct dt_tracker *tracker, uint64_t id)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	long slot = dt_find_cursor(tracker, id);
	if (slot < 0)
		return dt_leave(tracker, (int)slot);
	free_cursor(tracker, &tracker->cursors[slot]);
	return dt_leave(tracker, 0);
}

void dt_close_cursors(struct dt_tracker *tracker)
{
	for (size_t slot = 0; slot < tracker->cursor_room; slot++)
		free_cursor(tracker, &tracker->cursors[slot]);
}
