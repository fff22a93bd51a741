// Floor 1: the native half of a session. It owns the descriptors, the regions, the cursors and what
// each cursor has not yet been given. Every function may be called from any thread; each is atomic against the
// others. None of them knows Python. All return 0 or more for success and a negative error: -errno of the kernel,
// or one of the DT_E* below.
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "../base/memory.h"
#include "../base/runs.h"
#include "../include/dirtytrack.h"

enum dt_region_flags { // beside DT_SPARSE
	DT_LOST = 2,   // no longer what was registered; stays so until removed
};

// What a cursor does with the pages it finds.
enum dt_verb {
	DT_PEEK,    // report; change nothing
	DT_COLLECT, // report and re-arm
	DT_RESET,   // re-arm and forget
	DT_PROVE,   // collect, and re-arm also what an adaptive session leaves open
};

// Where a kernel refused, for the message.
struct dt_failure {
	const char *call;
	uint64_t start;
	uint64_t stop;
};

// Pages [first, last) of a region.
struct dt_slice {
	uint64_t region;
	uint64_t first;
	uint64_t last;
};

// The pages of one region in an epoch: runs[first_run, first_run + run_count), counted from the region's first page.
struct dt_entry {
	uint64_t region;
	uint64_t first_run;
	uint64_t run_count;
	uint64_t pages;
	uint64_t first_assumed, assumed_count; // likewise in buffers.assumed: those that were not seen to be written
};

struct dt_session;

struct dt_epoch_buffers {
	struct dt_entry *entries;
	struct dt_run *runs;
	struct dt_run *assumed;
	size_t entry_room, run_room, assumed_room;
};

// What one collect or peek found. It is made before the call that fills it, and its release gives back what nobody
// has settled, so no page is in the hands of nobody at any time.
struct dt_epoch {
	uint64_t number; // 1 for the first epoch of a cursor
	uint64_t cursor;
	uint64_t pages;
	uint64_t entry_count;
	uint64_t run_count;
	uint64_t assumed_count;
	struct dt_epoch_buffers buffers;
	struct dt_failure failure;
	uint64_t aborted;
	uint64_t settled;           // its pages have an owner: it was read, committed or aborted
	struct dt_session *session; // once it was filled
};

// Opens a session over a userfaultfd (WP_ASYNC enabled) and a descriptor of /proc/self/pagemap. It owns both from
// here on, also when it fails. blind_to_holes: the kernel does not report dropped page tables (a second scan finds
// them); 2 makes the first scan blind on purpose, to try that path on a kernel that has no need of it. cursor_ret:
// the default cursor.
int dt_session_open(int userfaultfd, int pagemap, int blind_to_holes, struct dt_session **session_ret,
		    uint64_t *cursor_ret);
// Opens a session that compares the memory with a copy of it. pagemap: a descriptor of /proc/self/pagemap, which it
// owns from here on, or -1: sparse regions are then read in full.
int dt_session_open_compare(int pagemap, struct dt_session **session_ret, uint64_t *cursor_ret);
// From here on pages that are written in scan after scan are left open, and reported as written without a fault for
// each; to be called before anything is tracked. Not for a session that compares.
int dt_session_adapt(struct dt_session *session);
// From here on a share (0 to 1) of the pages that a collect calls clean is sampled at random, and compared at the
// cursor's next collect. One that changed unreported is given to every cursor, and the collect fails with -DT_EMISSED,
// or, if only counted, does not. Sparse regions are left out: reading them would populate them. Not for a session that
// compares.
int dt_session_verify(struct dt_session *session, double share, int count_only);
// Lists, and forgets, up to room of the pages that were missed, by address; their number.
long dt_session_missed(struct dt_session *session, struct dt_run *pages, size_t room);
// Unregisters everything and closes the descriptors; in a forked child it only closes them. May be repeated.
void dt_session_close(struct dt_session *session);
// Closes the session and drops the opener's reference; the last epoch frees it.
void dt_session_release(struct dt_session *session);
// 0 while the session can be used by this process, else -DT_EFORKED or -DT_ECLOSED. Takes no lock.
int dt_session_usable(const struct dt_session *session);

// Tracks the pages [start, stop), both multiples of 1 << page_shift. They are armed and clean when it returns; pages
// shared with other regions keep what was written in them for those. On failure nothing of the range is left
// registered that no other region holds.
int dt_session_add(struct dt_session *session, uint64_t start, uint64_t stop, uint32_t page_shift, uint32_t flags,
		   uint64_t *region_ret, struct dt_failure *failure);
// Forgets a region and unregisters those of its pages that no other region holds. 1: some of them could not be, since
// they are unmapped or another userfaultfd's; dt_session_release_range on each mapping in the range gets at the rest.
int dt_session_remove(struct dt_session *session, uint64_t region);
// Unregisters those of the pages [start, stop), all of one mapping, that no region holds.
int dt_session_release_range(struct dt_session *session, uint64_t start, uint64_t stop);
// 1 if all of [start, stop) is mapped and registered here, 0 if it is not.
int dt_session_holds(struct dt_session *session, uint64_t start, uint64_t stop);
// Marks the regions that touch [start, stop) as lost.
int dt_session_lose(struct dt_session *session, uint64_t start, uint64_t stop);
// Marks one region as lost.
int dt_session_lose_region(struct dt_session *session, uint64_t region);
// 1 if the region is lost, 0 if it is not.
int dt_session_is_lost(struct dt_session *session, uint64_t region);
// Rises with every add and remove.
uint64_t dt_session_generation(struct dt_session *session);
// Declares pages of a region written, to every cursor and to every region that shares them.
int dt_session_mark(struct dt_session *session, uint64_t region, uint64_t first, uint64_t last);

// Copies bytes of tracked memory such that every store that the copy lacks is found by a later scan, also beside
// writers and by a session that compares.
void dt_session_contents(struct dt_session *session, const void *from, size_t bytes, void *to);

// A new consumer. Writes before it are not its own.
int dt_cursor_open(struct dt_session *session, uint64_t *cursor_ret);
int dt_cursor_close(struct dt_session *session, uint64_t cursor);

// An empty epoch of size (sizeof(struct dt_epoch)) bytes, for one call of dt_collect or dt_collect_all, and once it is
// settled for another one on the same session; NULL without memory. The signatures are those of an allocator, so that a
// garbage-collected language can pair the two at once.
void *dt_epoch_new(size_t size);
// Aborts the epoch unless it is settled, and frees it.
void dt_epoch_release(void *epoch);
// One verb of a cursor on every region, if the generation is still the one named.
int dt_collect_all(struct dt_session *session, uint64_t cursor, int verb, uint64_t generation, struct dt_epoch *epoch);
// The same on the given slices: sorted within a region, disjoint, the slices of a region next to each other.
int dt_collect(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch);
// Gives the pages of an epoch back to its cursor, once, and settles it. What was closed or removed meanwhile is
// skipped.
int dt_epoch_abort(struct dt_epoch *epoch);
// Settles an epoch of which the caller has handled some pages: the runs of these entries, one for each of the epoch's.
// The others go back to its cursor.
int dt_epoch_settle(struct dt_epoch *epoch, const struct dt_entry *entries, const struct dt_run *runs);
