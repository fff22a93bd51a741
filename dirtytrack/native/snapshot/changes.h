// Lists of changed bytes: made by comparing, checked when they come from elsewhere, and written into memory.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../base/extent.h"
#include "../core/span.h"

#pragma GCC visibility push(hidden)

// Bytes [start, stop) of a region that differ; stop is exclusive.
struct dt_change {
	uint64_t region; // a number of the caller's
	uint64_t start;
	uint64_t stop;
	uint64_t at; // where their two contents begin in dt_changes.before and .after
};

// A list of changes, which owns their contents. Sorted as far as it was made in order. One thread at a time.
struct dt_changes {
	struct dt_change *changes;
	size_t change_room;
	size_t change_count;
	uint8_t *before; // what the bytes were, one change after the other
	uint8_t *after;  // what they are
	size_t before_room;
	size_t after_room;
	uint64_t bytes; // in before, and in after
	int error;      // why it is not complete: -ENOMEM or -EFBIG, else 0
	int taken_on;   // a snapshot's copies have been made what they are after the changes
};

// Reads bytes [start, stop) of a region as they were before.
typedef void dt_read_before(const void *context, uint64_t region, uint64_t start, uint64_t stop, uint8_t *out);

// How a list of changes is made.
struct dt_comparing {
	uint64_t gap;         // changes of a region with at most so many equal bytes between them become one
	uint64_t limit;       // bytes that the list may take: its rows, and its contents before and after
	dt_read_before *read; // the bytes between them; NULL: they lie in front of those that are compared
	const void *context;
};

// An empty list, and its end. For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_changes_new(size_t size);
void dt_changes_free(void *changes);

// Adds the bytes in which before[0, nbytes) and after[0, nbytes) differ, which are those of a region from start on; one
// may become one with the last one in the list. Reads each byte of after once, so it may be written meanwhile. -ENOMEM,
// or -EFBIG if the list takes more than it may; that stays the list's error, and nothing is added any more.
int dt_changes_compare(struct dt_changes *changes, const struct dt_comparing *how, uint64_t region, uint64_t start,
		       const uint8_t *before, const uint8_t *after, uint64_t nbytes);
// Adds all of these bytes, equal or not.
int dt_changes_add(struct dt_changes *changes, const struct dt_comparing *how, uint64_t region, uint64_t start,
		   const uint8_t *before, const uint8_t *after, uint64_t nbytes);

// What follows is about n changes and the memory of each region, which need not be tracked. 0 or -errno, as for
// dt_check_runs and dt_put.
//
// Whether all bytes can be written, before one is. It populates their pages.
int dt_changes_check(const struct dt_change *changes, size_t n, const struct dt_extent *memories,
		     struct dt_failure *failure);
// *place_ret: the first change whose bytes of memory are not the contents; n if there is none.
int dt_changes_match(const struct dt_change *changes, size_t n, const uint8_t *contents,
		     const struct dt_extent *memories, size_t *place_ret, struct dt_failure *failure);
// Writes the contents into memory.
int dt_changes_apply(const struct dt_change *changes, size_t n, const uint8_t *contents,
		     const struct dt_extent *memories, struct dt_failure *failure);

#pragma GCC visibility pop
