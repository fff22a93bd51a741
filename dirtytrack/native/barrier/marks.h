// Ranges of memory whose pages any thread may mark at any time, without a lock: in the middle of a call of another
// thread, or of its own, and while all others are stopped.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "../base/extent.h"

#pragma GCC visibility push(hidden)

// A range: a bit for each page. It never moves.
struct dt_marked;

// All begins as zero. One thread at a time may call the functions below, except for dt_mark.
struct dt_marks {
	struct dt_marked *first;   // by no order
	struct dt_marked *removed; // taken out, but perhaps still in the hands of dt_mark
	uint64_t marking;          // how many calls of dt_mark are under way
	bool any;                  // there are marks that nobody has taken
};

// Is given addresses of pages that were marked.
typedef void dt_take_marks(void *context, struct dt_run addresses);

// Makes a range, or returns NULL without memory. Frees one that is in no list.
struct dt_marked *dt_marked_new(const struct dt_extent *extent);
void dt_marked_free(struct dt_marked *marked);
// Adds a range.
void dt_marks_add(struct dt_marks *marks, struct dt_marked *marked);
// Puts two ranges, which make up as much, in the place of one. dt_mark finds either it or them, at any time; what was
// marked in it they have after dt_marks_inherit.
void dt_marks_divide(struct dt_marks *marks, struct dt_marked *marked, struct dt_marked *low, struct dt_marked *high);
// Takes a range out.
void dt_marks_remove(struct dt_marks *marks, struct dt_marked *marked);
// What was marked in ranges that were taken out is marked in those that have the same bytes, and else forgotten. Frees
// them as soon as no dt_mark can be looking at them.
void dt_marks_inherit(struct dt_marks *marks);
// Frees everything. Nobody is in dt_mark any more, nor will be.
void dt_marks_free(struct dt_marks *marks);

// Marks the pages of the bytes [start, stop). Takes no lock and waits for nobody. -DT_EUNTRACKED: some are in no range,
// and none was marked.
int dt_mark(struct dt_marks *marks, uint64_t start, uint64_t stop);
// Whether anything was marked since the last call. What is marked while it runs may count for this one or the next.
bool dt_marks_any(struct dt_marks *marks);
// Takes the marked pages of a range, which are marked no longer.
void dt_marks_take(struct dt_marked *marked, dt_take_marks *take, void *context);

#pragma GCC visibility pop
