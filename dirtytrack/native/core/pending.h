// What each cursor has pending: pages that a scan found and that were not given to it yet. The session's lock protects
// all of it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/bits.h"
#include "regions.h"
#include "samples.h"

#pragma GCC visibility push(hidden)

// One consumer of a session.
struct dt_cursor {
	uint64_t id;             // never used again in the session; the low 32 bits are its slot; 0: the slot is free
	uint64_t epochs;         // collects that succeeded
	struct dt_bits *pending; // by the slot of a region, pages counted from its first one; owned, as the words are
	struct dt_bits *assumed; // likewise: those of them that were not seen to be written, if the backend assumes
	size_t pending_room;
	size_t assumed_room;
	struct dt_samples samples; // for the double check
};

struct dt_cursors {
	struct dt_cursor *slots; // by the low half of their identifier; owned; opening a cursor may move them
	size_t room;
};

// The cursor of this identifier; NULL: it was closed.
struct dt_cursor *dt_find_cursor(const struct dt_cursors *cursors, uint64_t id);
// Loops over the cursors.
#define for_each_cursor(cursor, cursors)                                                                         \
	for (struct dt_cursor *cursor = (cursors)->slots; cursor < (cursors)->slots + (cursors)->room; cursor++) \
		if (cursor->id)

// Gives a cursor a bitmap for a region, and a second one if pages are assumed. 0 or -ENOMEM; either way it can be
// freed.
int dt_make_pending(struct dt_cursor *cursor, const struct dt_region *region, bool assumes);
void dt_free_pending(struct dt_cursor *cursor, const struct dt_region *region);
// Empties the slot of a cursor whose bitmaps were freed.
void dt_free_cursor(struct dt_cursor *cursor, uint32_t page_shift);
// Frees the table, of which every slot has to be empty.
void dt_free_cursors(struct dt_cursors *cursors);

// What a cursor has pending from a region.
struct dt_bits *dt_pending(const struct dt_cursor *cursor, const struct dt_region *region);
// What of that was not seen to be written; NULL if nothing is ever assumed.
struct dt_bits *dt_assumed(const struct dt_cursor *cursor, const struct dt_region *region);
// Sets the bits of those of a region's pages that lie in n runs of addresses.
void dt_set_runs(struct dt_bits *bits, const struct dt_region *region, const struct dt_run *runs, size_t n);
// Adds the pages that lie in n runs of addresses to what the cursors have pending from a region: all but one of them
// (NULL: all).
void dt_feed_region(const struct dt_cursors *cursors, const struct dt_region *region, const struct dt_run *runs,
		    size_t n, const struct dt_cursor *except);

#pragma GCC visibility pop
