// Floor 2, snapshot: many states of the same regions, each a tree of pages that it shares with others.
#pragma once

#include "page_tree.h"
#include "snapshot.h"

// All states of n regions, and the one that memory was in when it was last saved or restored: memory differs from it
// on pages that are pending for the cursor, and on no others.
struct dt_history {
	const struct dt_twin *twins; // owned by the caller; their copies are not used
	size_t n;
	uint64_t *first;         // number of the first unit of each region; of n: how many there are
	struct dt_store store;   // of pages of the system
	struct dt_node **states; // by identifier, from 1 on; NULL: all zeros
	uint8_t *is_state;
	size_t state_room, is_state_room;
	uint64_t saves;           // so far
	struct dt_node *tree;     // what memory was
	uint64_t current;         // the identifier of that; 0: it is no state any more, or yet
	struct dt_bits *written;  // of each region, while a plan is made
	struct dt_entry *entries; // the plan of a restore: the pages to write, by region
	size_t entry_room;
	struct dt_run *runs;
	size_t run_room;
};

// An empty history, and its end; an allocator's signatures.
void *dt_history_new(size_t size);
void dt_history_free(void *history);
// Says what it is of. 0 or -ENOMEM.
int dt_history_open(struct dt_history *history, const struct dt_twin *twins, size_t n);
// Whether there is such a state.
int dt_history_has(const struct dt_history *history, uint64_t state);
// Bytes that the states take.
uint64_t dt_history_bytes(const struct dt_history *history);
// An identifier that no state has.
uint64_t dt_history_unused(const struct dt_history *history);
// Collects into the epoch, and makes what memory is now a state; the first time without believing the epoch. Pages
// that are as they were are shared. The epoch is settled, or on an error has given its pages back.
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
