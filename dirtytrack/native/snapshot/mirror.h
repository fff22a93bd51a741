// A copy of a region that is kept up to date by copying what was written. Neither function touches memory that can't be
// read: a mirror goes on beside threads that unmap, protect and truncate it.
#pragma once

#include "../base/extent.h"
#include "../core/collect.h"

#pragma GCC visibility push(hidden)

// Copies bytes [start, stop) of a region, counted from its first, to its copy, which is zeros there; pages of zeros are
// left out. Every store that the copy lacks is found by a later scan. -EFAULT: some of it can't be read, and the
// failure says what.
int dt_mirror_fill(struct dt_session *session, const struct dt_extent *extent, uint64_t start, uint64_t stop,
		   uint8_t *copy, struct dt_failure *failure);
// Collects a region, one whole slice, and copies the bytes on the pages that were written, in the same way; *copied is
// how many. The epoch is settled then. After a failure the copy may have some of them; the epoch has all, and has to be
// aborted.
int dt_mirror_update(struct dt_session *session, uint64_t cursor, const struct dt_slice *slice,
		     const struct dt_extent *extent, uint8_t *copy, struct dt_epoch *epoch, uint64_t *copied);

#pragma GCC visibility pop
