// Opening and closing cursors.
#pragma once

#include "session.h"

#pragma GCC visibility push(hidden)

// A new consumer. Writes before it are not its own: what was written so far is harvested for the older cursors.
int dt_cursor_open(struct dt_session *session, uint64_t *cursor_ret);
// Forgets a cursor, and what it has pending. -DT_ECLOSED: there is no such cursor.
int dt_cursor_close(struct dt_session *session, uint64_t cursor);
// The next epoch of this cursor alone has these pages, too. -DT_ECLOSED: there is no such cursor, or region.
int dt_cursor_feed(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n);

// Forgets every cursor. The caller holds the lock.
void dt_close_cursors(struct dt_session *session);

#pragma GCC visibility pop
