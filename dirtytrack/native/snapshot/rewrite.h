// Memory is made what it was, exactly, also beside threads that write to it.
#pragma once

#include "../core/collect.h"

#pragma GCC visibility push(hidden)

// What pages of n whole regions are to become. All of it is the caller's.
struct dt_rewrite {
	const struct dt_slice *slices; // all pages of each region
	const struct dt_extent *extents;
	size_t n;
	bool apart;                     // whether no two of the regions share a page
	const struct dt_entry *entries; // the pages, by region
	const struct dt_run *runs;      // of the entries
	bool armed;                     // whether long runs are worth opening before they are written
	// What bytes of a region are to be, which lie on one page; NULL: zeros.
	const uint8_t *(*contents)(const void *context, size_t region, struct dt_run bytes);
	const void *context;
};

// Writes the pages and re-arms them. What differs afterwards was written by another thread, and is pending for all
// cursors: a store is undone or pending. `taken` is for the collects; what they find beyond the pages goes back to the
// cursor. 0, or a negative error: then a part was not written.
int dt_rewrite(struct dt_session *session, uint64_t cursor, const struct dt_rewrite *rewrite, struct dt_epoch *taken);

#pragma GCC visibility pop
