// The double check: a sample of the pages that a collect calls clean is copied, and compared at the cursor's next one.
#pragma once

#include "epoch.h"

#pragma GCC visibility push(hidden)

// From here on a share (0 to 1) of the pages that a collect calls clean is sampled at random, and compared at the
// cursor's next collect. One that changed unreported is given to every cursor, and the collect fails with -DT_EMISSED;
// with warn_only it succeeds, and the page is in dt_session_missed. Sparse regions are left out: reading them would
// populate them. Not for a session that compares. 0 or -ENOMEM.
int dt_session_double_check(struct dt_session *session, double share, int warn_only);
// Lists, and forgets, up to room of the pages that were missed, by address; returns how many there are. With room 0 it
// forgets none.
long dt_session_missed(struct dt_session *session, struct dt_run *pages, size_t room);

// The end of a collect of n slices (slices NULL: of everything) into an epoch: compares what was sampled of them
// before, and samples anew. 0, -DT_EMISSED or -ENOMEM. The caller holds the lock.
int dt_check_samples(struct dt_session *session, struct dt_cursor *cursor, const struct dt_epoch *epoch,
		     const struct dt_slice *slices, size_t n);

#pragma GCC visibility pop
