// The contents of regions beside copies of them. None of it locks a session for longer than the collect in it takes. A
// page that can't be touched is an error, with the failure about it: -EACCES, -EFAULT.
#pragma once

#include "../base/extent.h"
#include "../core/collect.h"
#include "changes.h"

#pragma GCC visibility push(hidden)

// n whole regions, and a copy of each. All of it is the caller's.
struct dt_copies {
	const struct dt_slice *slices; // all pages of each region
	const struct dt_extent *extents;
	uint8_t *const *copies;
	size_t n;
	int apart; // whether no two of the regions share a page
	int maps;  // a descriptor of /proc/self/maps
};

// Copies the regions into copies that are zeros, but for what is zeros. Dense stretches of the copies get huge pages.
int dt_copies_fill(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot,
		   struct dt_failure *failure);
// Declares pages written that are not populated, where the copies are not zeros: they were dropped, which no scan of
// sparse regions finds. Where unpopulated pages may be a file's it does nothing.
int dt_copies_find_dropped(struct dt_session *session, const struct dt_copies *snapshot);
// Peeks or collects, as the verb says, and lists in what the pages differ from the copies: each region goes by its
// place, and the error of dt_changes_compare is in changes->error. If it collects, and nothing fails, the copies take
// on what is listed.
int dt_copies_diff(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot, int verb,
		   struct dt_changes *changes, const struct dt_comparing *how, struct dt_epoch *epoch);
// Undoes that, once: the copies are what they were, and the pages the cursor's again.
void dt_copies_take_back(const struct dt_copies *snapshot, struct dt_changes *changes, struct dt_epoch *epoch);
// Collects, and makes the copies of the pages equal to the memory.
int dt_copies_advance(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot,
		      struct dt_epoch *epoch);
// Peeks into `open`, and makes its pages equal to the copies: as dt_rewrite, which needs `taken`.
int dt_copies_rollback(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot,
		       struct dt_epoch *open, struct dt_epoch *taken);
// Lists in what some pages, n entries of runs, differ from the copies, as dt_copies_diff. What is not populated is
// not touched.
int dt_copies_verify(struct dt_session *session, uint64_t cursor, const struct dt_copies *snapshot,
		     const struct dt_entry *entries, const struct dt_run *runs, struct dt_changes *changes,
		     struct dt_failure *failure);

#pragma GCC visibility pop
