// Two lists of changes, one after the other, as one.
#pragma once

#include "changes.h"

#pragma GCC visibility push(hidden)

// A list of n changes, and their contents: at `at` of each. Sorted by region and then by address; none overlap.
struct dt_diff {
	const struct dt_change *changes;
	size_t n;
	const uint8_t *before;
	const uint8_t *after;
	int one_sided; // what was before is not known
};

// Two diffs that do not follow each other: a byte of a region that one left as it is not before the other.
struct dt_conflict {
	uint64_t region;
	uint64_t byte;
	uint8_t left;
	uint8_t found;
};

// Adds to a list what differs between before the earlier and after the later one; if one of them is one-sided, all that
// either has, with undefined contents before. 0; 1, and the conflict, if one does not follow the
// other; else the list's error.
int dt_merge(struct dt_changes *merged, const struct dt_diff *earlier, const struct dt_diff *later,
	     struct dt_conflict *conflict_ret);

#pragma GCC visibility pop
