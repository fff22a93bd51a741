// Floor 2, snapshot: the contents of regions beside copies of them. Loops over bytes; none of it locks a session for
// longer than the collect in it takes.
#pragma once

#include "../core/session.h"

// A region and a copy of its bytes.
struct dt_twin {
	uint64_t region;
	uint64_t address; // of its first byte
	uint64_t nbytes;
	uint64_t offset; // of its first byte on its first page
	uint64_t page_size;
	uint8_t *copy;
};

// Bytes [start, stop) of a region that differ; their two contents begin at byte `at` of dt_changes.before and .after.
struct dt_change {
	uint64_t region; // a number of the caller's
	uint64_t start;
	uint64_t stop;
	uint64_t at;
};

// A list of changes, which owns their contents. Sorted as far as it was made in order.
struct dt_changes {
	struct dt_change *changes;
	size_t change_room, change_count;
	uint8_t *before, *after;
	size_t before_room, after_room;
	uint64_t bytes;
};

// An empty list, and its end; an allocator's signatures.
void *dt_changes_new(size_t size);
void dt_changes_free(void *changes);

// Adds the bytes in which before[0, nbytes) and after[0, nbytes) differ, which are those of a region from start on.
// Changes of a region with at most gap equal bytes between them become one, also with the last one in the list if the
// bytes between are in before. Reads each byte of after once, so it may be written meanwhile. -ENOMEM, or -EFBIG if
// the contents exceed limit bytes.
int dt_compare(struct dt_changes *changes, uint64_t region, uint64_t start, const uint8_t *before, const uint8_t *after,
	       uint64_t nbytes, uint64_t gap, uint64_t limit);

// Whether n changes are in order, disjoint, within regions of these sizes, and have so many bytes of contents, in
// order.
int dt_changes_valid(const struct dt_change *changes, size_t n, const uint64_t *sizes, size_t regions, uint64_t bytes);
// The index of the first of n changes whose bytes of memory are not the contents; n if there is none.
size_t dt_changes_match(const struct dt_change *changes, size_t n, const uint8_t *contents, uint8_t *const *memories);
// Writes the contents of n changes into memory.
void dt_changes_apply(const struct dt_change *changes, size_t n, const uint8_t *contents, uint8_t *const *memories);

// dt_compare for the pages that an epoch of n whole regions has, n twins in their order.
int dt_compare_pages(struct dt_changes *changes, const struct dt_twin *twins, size_t n, const struct dt_epoch *epoch,
		     uint64_t gap, uint64_t limit);
// Makes the copies of those pages equal to the memory.
void dt_update(const struct dt_twin *twins, size_t n, const struct dt_epoch *epoch);
// Copies a region without the parts that are zeros; its copy must be zeros.
void dt_copy(const struct dt_twin *twin);
// The index of the first twin that has pages in its entry of which some can't be read (or written), n if there is none,
// by PROCMAP_QUERY on a descriptor of /proc/self/maps; -errno if it can't be asked.
long dt_find_protected(int maps, const struct dt_twin *twins, size_t n, const struct dt_entry *entries,
		       const struct dt_run *runs, int write);
// Makes the memory of the pages in `open` (a peek) equal to the copies, and then collects into `taken`; what that finds
// beyond the pages in `open` goes back to the cursor.
int dt_rollback(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
		const struct dt_twin *twins, const struct dt_epoch *open, struct dt_epoch *taken);
