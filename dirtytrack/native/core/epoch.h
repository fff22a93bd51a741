// What one collect or peek found, and who has its pages.
#pragma once

#include "session.h"

#pragma GCC visibility push(hidden)

// It is made before the call that fills it, and its release gives back what nobody has settled, so that no page is in
// the hands of nobody at any time. The caller owns it; one thread at a time may fill, settle or release it.
struct dt_epoch {
	uint64_t number; // 1 for the first epoch of a cursor
	uint64_t cursor; // its identifier
	uint64_t pages;  // in all entries
	uint64_t entry_count;
	uint64_t run_count;
	uint64_t assumed_count;
	struct dt_epoch_buffers buffers;
	struct dt_failure failure;   // if the call failed
	uint64_t aborted;            // its pages are its cursor's again
	uint64_t settled;            // its pages have an owner: it was read, committed or aborted
	struct dt_threads unstopped; // that were not stopped during its scan, in a session that stops threads
	struct dt_session *session;  // of which it holds a reference, once it was filled
};

// An empty epoch of size (sizeof(struct dt_epoch)) bytes, for one call of dt_collect or dt_collect_all, and once it is
// settled for another one on the same session; NULL without memory. For cffi's ffi.new_allocator, which passes the
// struct's size.
void *dt_epoch_new(size_t size);
// Aborts the epoch unless it is settled, and frees it.
void dt_epoch_release(void *epoch);
// The same for an epoch that is a part of something else, which is not freed.
void dt_epoch_end(struct dt_epoch *epoch);
// Gives the pages of an epoch back to its cursor, once, and settles it. What was closed or removed meanwhile is
// skipped. 0 or -DT_EFORKED.
int dt_epoch_abort(struct dt_epoch *epoch);
// Settles an epoch of which the caller has handled some pages: the runs of these entries, one for each of the epoch's.
// The others go back to its cursor.
int dt_epoch_settle(struct dt_epoch *epoch, const struct dt_entry *entries, const struct dt_run *runs);

// Gives all but the first so many pages of an epoch back to its cursor; the others stay, settled or not.
int dt_epoch_trim(struct dt_epoch *epoch, uint64_t pages);

// Gives the pages of an epoch back to a cursor. The caller holds the session's lock.
void dt_give_back(struct dt_session *session, const struct dt_epoch *epoch, struct dt_cursor *cursor);

#pragma GCC visibility pop
