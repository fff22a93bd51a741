// Parts of regions: what becomes of the rest of a region when some of its memory goes, or is replaced.
#pragma once

#include "session.h"

#pragma GCC visibility push(hidden)

// Divides a region at the address of one of its pages but the first, into two regions that have all that the cursors
// had pending from it; it is gone itself. Nobody may hold an epoch with pages of it. -DT_ECLOSED: there is no such
// region. -ENOMEM: it is as it was.
int dt_session_divide(struct dt_session *session, uint64_t region, uint64_t at, uint64_t parts_ret[2]);
// Takes memory that was mapped anew, at the pages [start, stop) of a region, for what was there: registers it, and
// declares all of it written, as dt_session_recover does for the regions around it. Errors as of dt_session_add; then
// the regions are lost.
int dt_session_replace(struct dt_session *session, uint64_t region, uint64_t start, uint64_t stop,
		       struct dt_failure *failure);
// Looks whether lost regions that touch the pages [start, stop) have lost nothing any more, since what they had lost
// was removed or replaced. All of such a region is declared written: nobody knows what was.
int dt_session_recover(struct dt_session *session, uint64_t start, uint64_t stop);

#pragma GCC visibility pop
