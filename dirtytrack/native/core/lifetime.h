// Opening and closing a session.
#pragma once

#include "session.h"

#pragma GCC visibility push(hidden)

// Opens a session over a backend like this one, and its default cursor. It owns the backend's descriptors from here on,
// also when it fails. 0 or -ENOMEM. The caller gives its reference back with dt_session_release.
int dt_open_session(const struct dt_backend *like, struct dt_session **session_ret, uint64_t *cursor_ret);
// Unregisters everything and closes the descriptors; in a forked child it only closes them. May be repeated.
void dt_session_close(struct dt_session *session);
// Closes the session and drops the opener's reference; the last epoch, or card table, frees it.
void dt_session_release(struct dt_session *session);

#pragma GCC visibility pop
