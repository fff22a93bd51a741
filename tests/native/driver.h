// What the parts of the driver share: it exercises the C core under the sanitizers.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/wp_async.h"
#include "base/memory.h"
#include "checkpoint/capture.h"
#include "core/cursor.h"
#include "core/lifetime.h"
#include "core/tracking.h"
#include "kernel/probe.h"
#include "kernel/userfaultfd.h"

#define check(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			_exit(1);                                                               \
		}                                                                               \
	} while (0)

enum {
	THREADS = 4,
	PIECE = 96, // pages of the memory for each
	PAGES = THREADS * PIECE,
	REGIONS = 2, // of a capture, or a snapshot
};

// The session under test, and the memory that it tracks.
extern struct dt_session *session;
extern uint64_t page_size, page_shift;
extern char *memory;

enum { ARENA = 96 }; // pages
extern char *arena;  // of the memory, aligned to the largest cards

// What goes on beside a tracker that is tried out in the arena.
struct beside {
	void (*stored)(uint64_t page);
	void (*mapping)(void); // some of it is about to be mapped anew
	void (*marked)(void);  // some of it, which anybody may hear of from the next look at everything on
	void (*looked)(void);  // at everything
	void (*look)(uint64_t *random);
};
// Does everything with a tracker that has no range, at random, and closes it. others: NULL: nothing goes on beside it.
void try_fresh_tracker(uint64_t *random, struct dt_tracker *fresh, uint64_t size, unsigned flags,
		       const struct beside *others);

// A number below a limit, of a sequence that is always the same.
uint64_t draw(uint64_t *state, uint64_t below);
struct dt_session *open_tracker(enum dt_hole_reporting holes);
struct dt_session *open_compare(void);
// Tracks the pages [start, stop) of the memory.
uint64_t add(uint64_t start, uint64_t stop);
// Tracks two regions that begin in the middle of pages and share one.
void make_extents(struct dt_extent *extents, struct dt_slice *slices);

void try_run_lists(uint64_t *random);
void try_bitmap(uint64_t *random);
void try_tally(uint64_t *random);
void try_extents(uint64_t *random);
void try_threads(enum dt_hole_reporting holes, uint64_t *random);
void try_closing(void);
void try_fork(void);
void try_capture(uint64_t *random);
void try_files(void);
void try_hashes(void);
void try_pack(uint64_t *random);
void try_owners(uint64_t *random);
void try_following(uint64_t *random);
void try_file_tables(void);
void try_mailbox(uint64_t *random);
void try_snapshot(uint64_t *random);
void try_history(uint64_t *random);
void try_mirror(uint64_t *random);
void try_cards(uint64_t *random);
void try_write_watch(uint64_t *random);
void try_ranges(uint64_t *random);
void try_api(uint64_t *random);
void try_resets(uint64_t *random);
void try_kinds(uint64_t *random);
void try_huge(uint64_t *random);
void try_stops(void);
void try_failures(void);
