// One scan, and what becomes of what it found. The caller holds the session's lock in every call.
#pragma once

#include "session.h"

#pragma GCC visibility push(hidden)

// Scans a span in the session's context. Lists the written pages in out, by address, which has room for every other
// page; returns the number of runs, or -errno: then some pages may have been armed, and have to count as written. What
// the scan assumed goes to every cursor.
long dt_scan(struct dt_session *session, const struct dt_span *span, enum dt_scan_mode mode, struct dt_run *out);
// Scans and arms the pages of a region, which need not be in the table yet; what is found, or all of it if the scan
// fails, goes to every region and cursor. 0 or -errno.
int dt_harvest(struct dt_session *session, const struct dt_region *region);
// Adds [start, stop) to what every cursor has pending from every region that touches it.
void dt_feed(struct dt_session *session, uint64_t start, uint64_t stop);
// Flags those of the regions that touch [start, stop) whose memory is no longer ours.
void dt_find_losses(struct dt_session *session, uint64_t start, uint64_t stop);

#pragma GCC visibility pop
