// Many states of the same regions, each a tree of pages that it shares with others.
#pragma once

#include "../base/bits.h"
#include "../base/extent.h"
#include "../core/collect.h"
#include "changes.h"
#include "page_tree.h"

#pragma GCC visibility push(hidden)

// A state, by its identifier. Identifiers are from 1 on; 0: none.
struct dt_saved {
	uint64_t number;        // 1 for the first one that was saved; 0: there is no such state
	uint64_t parent;        // the identifier of the state that memory was in before
	uint64_t parent_number; // and its number; 0: none, or it had been dropped
	uint64_t older, newer;  // the states that were saved before and after this one, and still are
	uint64_t next_free;     // in the list of free identifiers
	int is_listed;          // in that
	uint32_t tree;
};

// All states of n regions, and the one that memory was in when it was last saved or restored: memory differs from it
// on pages that are pending for the cursor, and on no others. The unit that is kept is a page of the system, whatever
// the region's are; units are numbered through all regions. One thread at a time.
struct dt_history {
	struct dt_extent *extents; // n of them; owned
	size_t n;
	int apart;              // whether no two of the regions share a page
	int maps;               // a descriptor of /proc/self/maps, the caller's
	uint64_t *first_units;  // of each region; behind them, how many units there are; owned
	struct dt_store store;  // of contents
	struct dt_saved *saved; // by identifier; owned
	size_t saved_room;
	uint64_t saves;           // so far
	uint64_t count;           // of states
	uint64_t oldest, newest;  // of them
	uint64_t free;            // the list of free identifiers; some of them may be in use again
	uint64_t known;           // the highest identifier that was ever used
	uint32_t tree;            // what memory was
	uint64_t current;         // the identifier of that; 0: it is no state any more, or yet
	struct dt_bits *written;  // the pages of each region, while a plan is made; owned
	struct dt_entry *entries; // the plan of a restore: the pages to write, by region; owned
	size_t entry_room;
	struct dt_run *runs; // of the entries; owned
	size_t run_room;
	uint8_t *buffer; // a unit of memory that can't be read in place; owned
};

// An empty history, and its end. For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_history_new(size_t size);
void dt_history_free(void *history);
// Says of which regions it is. apart: whether no two of them share a page. maps: a descriptor of /proc/self/maps, the
// caller's. 0 or -ENOMEM; then it can only be freed.
int dt_history_open(struct dt_history *history, const struct dt_extent *extents, size_t n, int apart, int maps);
// Whether there is such a state.
int dt_history_has(const struct dt_history *history, uint64_t state);
// Bytes that the states take.
uint64_t dt_history_bytes(const struct dt_history *history);
// An identifier that no state has.
uint64_t dt_history_unused(struct dt_history *history);
// Makes a tree, which is its own from here on, the newest state. There is room for it.
void dt_history_add(struct dt_history *history, uint64_t state, uint32_t tree);
// Collects n whole regions into the epoch, and makes what memory is now a state; the first time of all that is
// populated. Pages that are as they were are shared. The epoch is settled, or on an error (-EACCES, -EFAULT: its
// failure says which pages can't be read) has given its pages back.
int dt_history_save(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		    const struct dt_slice *slices, uint64_t state, struct dt_epoch *epoch);
// Peeks at n whole regions into `open`, lists in history->entries and ->runs the pages to write to bring memory to a
// state, and writes them as dt_rewrite, which needs `taken`. *pages_ret: how many those are. -EINVAL: there is no such
// state. -EACCES, -EFAULT: some of them can't be written, as taken's failure says. On an error memory may be between
// two states, and all that differs is pending.
int dt_history_restore(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		       const struct dt_slice *slices, uint64_t state, struct dt_epoch *open, struct dt_epoch *taken,
		       uint64_t *pages_ret);
// Lists what differs between two states, from one to the other: each region goes by its place, and the error of
// dt_changes_compare is in changes->error; of `how`, only gap and limit count. 0, or -EINVAL: there is no such state.
int dt_history_diff(struct dt_history *history, uint64_t from, uint64_t to, struct dt_changes *changes,
		    const struct dt_comparing *how);
// Forgets a state, and frees what no other has.
void dt_history_drop(struct dt_history *history, uint64_t state);

#pragma GCC visibility pop
