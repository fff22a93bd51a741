// The native half of a session: it owns the descriptors, the regions, the cursors and what each cursor was not given
// yet. Functions that name the session in their name (dt_session_*, dt_cursor_*, dt_epoch_*, dt_collect*) take its lock
// themselves: each may be called from any thread, and is atomic against the others. The others want it held. All return
// 0 or more for success and a negative error: -errno of the kernel, or a DT_E* of dirtytrack.h; -DT_EFORKED and
// -DT_ECLOSED (the session) may come from any that takes the lock.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../base/stop.h"
#include "backend.h"
#include "buffers.h"
#include "lock.h"
#include "pending.h"
#include "regions.h"
#include "requests.h"
#include "rivals.h"
#include "worker.h"

#pragma GCC visibility push(hidden)

struct dt_session {
	struct dt_lock lock;       // of all below, but for the references
	uint32_t references;       // the opener's, and one for each epoch and card table; atomic
	uint32_t users;            // the opener, or its tracker, and more trackers: the last one closes it; atomic
	uint64_t next_serial;      // begins the next identifier of a region or a cursor
	struct dt_backend backend; // stays the same one once something is tracked
	struct dt_scan_context scan;
	struct dt_regions regions;
	struct dt_requests requests; // of the call that holds the lock
	struct dt_cursors cursors;
	struct dt_spare_buffers spare;
	struct dt_double_check double_check;
	struct dt_stopping stopping; // how the other threads are stopped during a scan
	struct dt_rival rival;       // has a lock of its own
	struct dt_worker worker;     // likewise; runs if the backend needs one
};

// Makes a session without regions or cursors over a backend like this one, whose descriptors it owns from here on, also
// when it fails. 0 or -ENOMEM.
int dt_session_new(const struct dt_backend *like, struct dt_session **session_ret);
// Adds a reference. Takes no lock.
void dt_session_hold(struct dt_session *session);
// Drops one; the last one frees the session, which has to be closed. Takes no lock. In a forked child what the session
// held stays: a thread of the parent may have been changing it.
void dt_session_drop(struct dt_session *session);
// Closes the descriptors, frees what only an open session has use for, and closes the lock. No region and no cursor may
// be left.
void dt_shut_session(struct dt_session *session);
// The same in a forked child, which owns nothing but the descriptors.
void dt_shut_forked_session(struct dt_session *session);

// 0 while the session can be used by this process, else -DT_EFORKED or -DT_ECLOSED. Takes no lock.
int dt_session_usable(const struct dt_session *session);
// Rises with every region added or removed that is listed; 0 if the session can't be used.
uint64_t dt_session_generation(struct dt_session *session);
// Where an address of a region is: its offset from the region's first page. -DT_ECLOSED: there is no such region.
int dt_session_locate(struct dt_session *session, uint64_t region, uint64_t address, uint64_t *offset,
		      uint32_t *page_shift);
// From here on the other threads are stopped by a signal for each scan that goes to an epoch, and a scan waits so many
// nanoseconds for them. tasks: a descriptor of /proc/self/task, which is copied; -1: as before, or it is opened. It may
// be said again. Errors as of dt_stopping_open: then it is as it was.
int dt_session_stop_threads(struct dt_session *session, int signal, uint64_t limit_ns, int tasks);
// Copies bytes of tracked memory such that every store that the copy lacks is found by a later scan, also beside
// writers and by a session that compares. If the session can't be used, it is a copy of the memory. 0; or -errno, with
// the address of the first page that can't be read: -EFAULT.
int dt_session_contents(struct dt_session *session, uint64_t start, size_t bytes, void *to, uint64_t *refused_ret);
// Begins, and ends, reading tracked memory in place of dt_session_contents, with the same promise: what is read
// in between holds no store that a later scan does not find, if it is undone meanwhile. May be nested.
void dt_begin_reading(struct dt_session *session);
void dt_end_reading(struct dt_session *session);
// Disarms the pages [start, stop), addresses, that the caller is about to write as a whole. May do nothing.
int dt_session_disarm(struct dt_session *session, uint64_t start, uint64_t stop);

#pragma GCC visibility pop
