// Reading and writing the bytes of tracked regions: right beside writers, with every backend, and without a signal
// where a touch may fail.
#pragma once

#include "../base/extent.h"
#include "../kernel/touch.h"
#include "session.h"

#pragma GCC visibility push(hidden)

// Shows bytes of a region after a scan that armed them, such that every store that is not among them is found by a
// later scan. *view_ret: where they are, which is the buffer (of bytes.stop - bytes.start) where they can't be read in
// place. 0; or -errno with *failure, -EFAULT where they can't be read now. If the session can't be used, or is NULL, it
// shows what is there.
int dt_view(struct dt_session *session, const struct dt_extent *extent, struct dt_run bytes, uint8_t *buffer,
	    const uint8_t **view_ret, struct dt_failure *failure);
// Whether dt_view needs no buffer.
bool dt_is_in_place(const struct dt_session *session, const struct dt_extent *extent);
// Bytes on their way from tracked memory, as dt_view shows them: pieces are noted, and read many by a call. At first
// all zero but for the session, whether it is locked, and where to tell a failure.
struct dt_reading {
	struct dt_session *session;
	struct dt_failure *failure;
	bool is_locked; // the caller holds the session's lock
	size_t count;
	size_t bytes;
	struct iovec from[DT_PIECES];
	struct iovec to[DT_PIECES];
};
// Notes bytes of a region that are to be read, or reads them. 0; or -errno, also of those noted before, with
// *reading->failure, -EFAULT where they can't be read now.
int dt_read_later(struct dt_reading *reading, const struct dt_extent *extent, struct dt_run bytes, uint8_t *to);
// Reads what was noted. The same errors.
int dt_read_now(struct dt_reading *reading);
// Writes bytes of a region; from NULL: zeros. 0; or -errno with *failure, -EFAULT where they can't be written now.
int dt_put(const struct dt_extent *extent, struct dt_run bytes, const uint8_t *from, struct dt_failure *failure);

// The first of some bytes that may be other than zeros, found without touching any. 1; 0: there are none; or -errno.
int dt_next_nonzero(const struct dt_session *session, const struct dt_extent *extent, struct dt_run bytes,
		    struct dt_run *piece_ret);

// Asks, before any of them is touched, whether pages of a region can be read, or with touch->write written: the runs
// from `run` on, by ascending address. 0; -EACCES: they are protected, -EFAULT: guard pages, or beyond the end of a
// file, with *failure about the first of them; or -errno of a call that failed.
int dt_check_runs(struct dt_touch *touch, const struct dt_extent *extent, const struct dt_run *run,
		  const struct dt_run *end, struct dt_failure *failure);
// The same for the entries of n extents. maps: a descriptor of /proc/self/maps.
int dt_check_entries(const struct dt_session *session, int maps, bool write, const struct dt_extent *extents, size_t n,
		     const struct dt_entry *entries, const struct dt_run *runs, struct dt_failure *failure);

#pragma GCC visibility pop
