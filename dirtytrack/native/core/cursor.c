// Cursors that come and go.
#include "cursor.h"

#include <errno.h>

#include "../base/array.h"
#include "scan.h"

static void free_cursor(struct dt_session *session, struct dt_cursor *cursor)
{
	for (size_t i = 0; i < session->regions.count; i++)
		dt_free_pending(cursor, session->regions.by_address[i]);
	dt_free_cursor(cursor, session->backend.page_shift);
}

// A free slot with bitmaps for every region. It becomes a cursor with an identifier; until then no scan feeds it.
static int new_cursor(struct dt_session *session, struct dt_cursor **cursor_ret)
{
	struct dt_cursors *cursors = &session->cursors;
	size_t slot = 0;
	while (slot < cursors->room && cursors->slots[slot].id)
		slot++;
	int error = dt_grow(&cursors->slots, &cursors->room, slot + 1, sizeof *cursors->slots);
	if (error)
		return error;
	struct dt_cursor *cursor = &cursors->slots[slot];
	for (size_t i = 0; i < session->regions.count && !error; i++)
		error = dt_make_pending(cursor, session->regions.by_address[i], session->backend.ops->assumes);
	if (error) {
		free_cursor(session, cursor);
		return error;
	}
	*cursor_ret = cursor;
	return 0;
}

// Gives what was written so far to the older cursors. A failure leaves more to them, not less.
static int harvest_all(struct dt_session *session)
{
	for (size_t i = 0; i < session->regions.count; i++) {
		const struct dt_region *region = session->regions.by_address[i];
		if (region->flags & DT_LOST)
			continue;
		int error = dt_harvest(session, region);
		if (error == -EPERM)
			dt_find_losses(session, region->start, region->stop);
		else if (error)
			return error;
	}
	return 0;
}

int dt_cursor_open(struct dt_session *session, uint64_t *cursor_ret)
{
	struct dt_cursor *cursor;
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	error = new_cursor(session, &cursor);
	if (error)
		return dt_leave(&session->lock, error);
	error = harvest_all(session);
	if (error) {
		free_cursor(session, cursor);
		return dt_leave(&session->lock, error);
	}
	cursor->id = ++session->next_serial << 32 | (uint64_t)(cursor - session->cursors.slots);
	*cursor_ret = cursor->id;
	return dt_leave(&session->lock, 0);
}

int dt_cursor_close(struct dt_session *session, uint64_t id)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	struct dt_cursor *cursor = dt_find_cursor(&session->cursors, id);
	if (cursor)
		free_cursor(session, cursor);
	return dt_leave(&session->lock, cursor ? 0 : -DT_ECLOSED);
}

int dt_cursor_feed(struct dt_session *session, uint64_t id, const struct dt_slice *slices, size_t n)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	const struct dt_cursor *cursor = dt_find_cursor(&session->cursors, id);
	error = cursor ? 0 : -DT_ECLOSED;
	for (size_t i = 0; !error && i < n; i++) {
		const struct dt_region *region = dt_find_region(&session->regions, slices[i].region);
		if (region)
			dt_bits_set(dt_pending(cursor, region), slices[i].start, slices[i].stop);
		else
			error = -DT_ECLOSED;
	}
	return dt_leave(&session->lock, error);
}

void dt_close_cursors(struct dt_session *session)
{
	for (size_t slot = 0; slot < session->cursors.room; slot++)
		free_cursor(session, &session->cursors.slots[slot]);
}
