// The contents of regions beside copies of them. None of it locks a session for longer than the collect in it takes.
// Where an epoch is given it is one of n whole regions, and the extents and copies are theirs, in its order.
#pragma once

#include "../base/extent.h"
#include "../core/collect.h"
#include "changes.h"

// dt_compare of the copies with memory, for the pages of an epoch: each region goes by its place.
int dt_compare_pages(struct dt_changes *changes, const struct dt_extent *extents, uint8_t *const *copies, size_t n,
		     const struct dt_epoch *epoch, uint64_t gap, uint64_t limit);
// Makes the copies of those pages equal to the memory.
void dt_update(const struct dt_extent *extents, uint8_t *const *copies, size_t n, const struct dt_epoch *epoch);
// Copies nbytes of memory but for the pages, counted from its first byte, that are zeros: the copy has to be zeros.
void dt_copy(const uint8_t *memory, uint64_t nbytes, uint64_t page_size, uint8_t *copy);
// The index of the first extent that has pages in its entry of which some can't be read (or with write != 0 written), n
// if there is none, by PROCMAP_QUERY on a descriptor of /proc/self/maps. -errno if it can't be asked.
long dt_find_protected(int maps, const struct dt_extent *extents, size_t n, const struct dt_entry *entries,
		       const struct dt_run *runs, int write);
// Makes the memory of the pages in `open` (a peek) equal to the copies, and then collects into `taken`; what that finds
// beyond the pages in `open` goes back to the cursor.
int dt_rollback(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
		const struct dt_extent *extents, uint8_t *const *copies, const struct dt_epoch *open,
		struct dt_epoch *taken);
