// What is known of each chunk that may lie on a huge page: whether tracking has split it, and since when nobody has
// written to it. The policy is here: a chunk that is split again soon waits twice as long each time, so that putting it
// back costs ever less.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "chunks.h"

#pragma GCC visibility push(hidden)

enum dt_mapped {
	DT_ON_SMALL_PAGES, // it was never seen on a huge page
	DT_ON_HUGE_PAGE,   // when it was last looked at
	DT_SPLIT,          // a page of it was written since
};

// How many scans have to find a chunk unwritten until it is cold.
struct dt_waits {
	uint32_t first; // when it is split for the first time
	uint32_t most;  // after being split again and again; after so many it may begin anew
};

// The block of a chunk. All zeros at first.
struct dt_split {
	uint64_t owed[DT_CHUNK_PAGES / 64]; // pages that are armed, and that the next scan has to report
	uint32_t quiet;                     // scans since one found it written
	uint32_t wait;                      // how many make it cold; 0: it was never split
	uint32_t returned;                  // how often it was put back
	uint8_t mapped;                     // an enum dt_mapped
	uint8_t kinds;                      // of the spans that it was scanned in: 1: dense, 2: sparse
	bool owes;                          // some page
};

// Adds pages, a bit each, to those that it owes. Whether it owes any now.
bool dt_split_owe(struct dt_split *split, const uint64_t *pages);
// Lists the owed pages of [first, stop) in out, which has room for every other one, and forgets them if they are taken;
// the number of runs.
size_t dt_split_owed(struct dt_split *split, size_t first, size_t stop, bool take, struct dt_run *out);

// Notes that a scan found some of the chunk written; whole: all of it, and that it is on a huge page.
void dt_split_written(struct dt_split *split, struct dt_waits waits, bool whole);
// Notes that one found nothing written. Whether that makes it cold.
bool dt_split_quiet(struct dt_split *split);
// Whether it is to be put back, as far as that is known here.
bool dt_split_is_cold(const struct dt_split *split);
// Notes that it could not be put back: it waits longer, too.
void dt_split_refused(struct dt_split *split, struct dt_waits waits);

#pragma GCC visibility pop
