// Cursors: what each consumer has coming.
#include <errno.h>

#include "internal.h"

long dt_find_cursor(const struct dt_session *session, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	return slot < session->cursor_room && session->cursors[slot].id == id ? (long)slot : -DT_ECLOSED;
}

struct dt_bits *dt_pending(const struct dt_session *session, size_t cursor_slot, const struct dt_region *region)
{
	return &session->cursors[cursor_slot].pending[(uint32_t)region->id];
}

static int make_bits(struct dt_bits **bits, size_t *room, const struct dt_region *region)
{
	size_t slot = (uint32_t)region->id;
	int error = dt_grow(bits, room, slot + 1, sizeof **bits);
	if (error)
		return error;
	(*bits)[slot].words = dt_alloc(dt_bits_bytes(dt_region_pages(region)));
	return (*bits)[slot].words ? 0 : -ENOMEM;
}

// Memory may have run out before there was room for the region.
static void free_bits(struct dt_bits *bits, size_t room, const struct dt_region *region)
{
	size_t slot = (uint32_t)region->id;
	if (slot >= room)
		return;
	dt_free(bits[slot].words, dt_bits_bytes(dt_region_pages(region)));
	bits[slot] = (struct dt_bits){0};
}

int dt_make_pending(const struct dt_session *session, struct dt_cursor *cursor, const struct dt_region *region)
{
	int error = make_bits(&cursor->pending, &cursor->pending_room, region);
	return error || !session->adaptive ? error : make_bits(&cursor->assumed, &cursor->assumed_room, region);
}

void dt_free_pending(struct dt_cursor *cursor, const struct dt_region *region)
{
	free_bits(cursor->pending, cursor->pending_room, region);
	free_bits(cursor->assumed, cursor->assumed_room, region);
}

void dt_feed_cursor(struct dt_session *session, struct dt_region *region, const struct dt_run *runs, size_t n,
		    size_t slot)
{
	dt_set_runs(dt_pending(session, slot, region), region, runs, n);
}

void dt_set_runs(struct dt_bits *bits, const struct dt_region *region, const struct dt_run *runs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t start = runs[i].start > region->start ? runs[i].start : region->start;
		uint64_t stop = runs[i].stop < region->stop ? runs[i].stop : region->stop;
		if (start < stop)
			dt_bits_set(bits, (start - region->start) >> region->page_shift,
				    (stop - region->start) >> region->page_shift);
	}
}

void dt_feed_region(struct dt_session *session, struct dt_region *region, const struct dt_run *runs, size_t n,
		    long except)
{
	for (size_t slot = 0; slot < session->cursor_room; slot++)
		if (session->cursors[slot].id && (long)slot != except)
			dt_feed_cursor(session, region, runs, n, slot);
}

static void free_cursor(struct dt_session *session, struct dt_cursor *cursor)
{
	for (size_t i = 0; i < session->region_count; i++)
		dt_free_pending(cursor, session->regions[i]);
	dt_free(cursor->assumed, cursor->assumed_room * sizeof *cursor->assumed);
	dt_free_samples(&cursor->samples, session->page_shift);
	dt_free(cursor->pending, cursor->pending_room * sizeof *cursor->pending);
	*cursor = (struct dt_cursor){0};
}

static int new_cursor(struct dt_session *session, struct dt_cursor **cursor_ret)
{
	size_t slot = 0;
	while (slot < session->cursor_room && session->cursors[slot].id)
		slot++;
	int error = dt_grow(&session->cursors, &session->cursor_room, slot + 1, sizeof *session->cursors);
	if (error)
		return error;
	struct dt_cursor *cursor = &session->cursors[slot];
	for (size_t i = 0; i < session->region_count && !error; i++)
		error = dt_make_pending(session, cursor, session->regions[i]);
	if (error) {
		free_cursor(session, cursor);
		return error;
	}
	*cursor_ret = cursor;
	return 0;
}

int dt_cursor_open(struct dt_session *session, uint64_t *cursor_ret)
{
	struct dt_cursor *cursor;
	int error = dt_enter(session);
	if (error)
		return error;
	error = new_cursor(session, &cursor);
	if (error)
		return dt_leave(session, error);
	for (size_t i = 0; i < session->region_count && !error; i++) {
		struct dt_region *region = session->regions[i];
		if (region->flags & DT_LOST)
			continue;
		// What was written so far belongs to the older cursors. A failure leaves more to them, not less.
		error = dt_harvest(session, region, region->start, region->stop);
		if (error == -EPERM) {
			dt_find_losses(session, region->start, region->stop);
			error = 0;
		}
	}
	if (error) {
		free_cursor(session, cursor);
		return dt_leave(session, error);
	}
	*cursor_ret = cursor->id = ++session->next_serial << 32 | (uint64_t)(cursor - session->cursors);
	return dt_leave(session, 0);
}

int dt_cursor_close(struct dt_session *session, uint64_t id)
{
	int error = dt_enter(session);
	if (error)
		return error;
	long slot = dt_find_cursor(session, id);
	if (slot < 0)
		return dt_leave(session, (int)slot);
	free_cursor(session, &session->cursors[slot]);
	return dt_leave(session, 0);
}

void dt_close_cursors(struct dt_session *session)
{
	for (size_t slot = 0; slot < session->cursor_room; slot++)
		free_cursor(session, &session->cursors[slot]);
}
