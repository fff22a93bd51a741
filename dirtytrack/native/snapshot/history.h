// Many states of the same regions, each a tree of pages that it shares with others.
#pragma once

#include "../base/bits.h"
#include "../base/extent.h"
#include "../core/collect.h"
#include "page_tree.h"

// When a state was saved.
struct dt_saved {
	uint64_t number; // 1 for the first one; 0: there is no such state
	uint64_t parent; // the number of the state that memory was in before; 0: none, or it had been dropped
};

// All states of n regions, and the one that memory was in when it was last saved or restored: memory differs from it
// on pages that are pending for the cursor, and on no others. The unit that is kept is a page of the system, whatever
// the region's are; units are numbered through all regions. One thread at a time.
struct dt_history {
	struct dt_extent *extents; // n of them; owned
	size_t n;
	uint64_t *first_units;   // of each region; behind them, how many units there are; owned
	struct dt_store store;   // of contents
	struct dt_node **states; // by identifier, from 1 on; NULL: all zeros; owned
	struct dt_saved *saved;  // by identifier; owned
	size_t state_room;
	size_t saved_room;
	uint64_t saves;           // so far
	struct dt_node *tree;     // what memory was
	uint64_t current;         // the identifier of that; 0: it is no state any more, or yet
	struct dt_bits *written;  // the pages of each region, while a plan is made; owned
	struct dt_entry *entries; // the plan of a restore: the pages to write, by region; owned
	size_t entry_room;
	struct dt_run *runs; // of the entries; owned
	size_t run_room;
};

// An empty history, and its end. For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_history_new(size_t size);
void dt_history_free(void *history);
// Says of which regions it is. 0 or -ENOMEM; then it can only be freed.
int dt_history_open(struct dt_history *history, const struct dt_extent *extents, size_t n);
// Whether there is such a state.
int dt_history_has(const struct dt_history *history, uint64_t state);
// Bytes that the states take.
uint64_t dt_history_bytes(const struct dt_history *history);
// The lowest identifier that no state has.
uint64_t dt_history_unused(const struct dt_history *history);
// Collects n whole regions into the epoch, and makes what memory is now a state; the first time without believing the
// epoch. Pages that are as they were are shared. The epoch is settled, or on an error has given its pages back.
int dt_history_save(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		    const struct dt_slice *slices, uint64_t state, struct dt_epoch *epoch);
// Lists in history->entries and ->runs the pages to write to bring memory, with the open pages of a peek, to a state.
// -EINVAL: there is no such state.
int dt_history_plan(struct dt_history *history, uint64_t state, const struct dt_epoch *open);
// Writes the pages that were planned, and then collects into `taken`; what that finds beyond them goes back to the
// cursor. On an error memory is between two states, and all that differs is pending.
int dt_history_restore(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		       const struct dt_slice *slices, uint64_t state, struct dt_epoch *taken);
// Forgets a state, and frees what no other has.
void dt_history_drop(struct dt_history *history, uint64_t state);
