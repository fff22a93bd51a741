// How hot pages are: which of a chunk are armed scan after scan in vain, and are left open instead. heat.c says how a
// page gets from one state to another.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "../base/runs.h"
#include "chunks.h"

#pragma GCC visibility push(hidden)

// The block of a chunk. All zeros at first: every page is cold.
struct dt_heat {
	uint8_t pages[DT_CHUNK_PAGES]; // the state of each, see heat.c; of one that is not held: cold
	uint16_t open;                 // how many pages are open
	uint16_t candidates;           // how many the next scan would open, if it finds them written
	uint16_t tested;               // how many of these were open before
	uint8_t unconfirmed;           // the share, of 255, of the tested pages that were not written, of late
	uint8_t is_warm;               // some page is not cold
	uint8_t hold;                  // so many scans more in which none is opened: it did not pay
	uint8_t next_hold;             // how long the last hold was, since leaving pages open paid
};

// Pages [start, stop) of a chunk, and the runs of a scan that may touch them. What it points to is the caller's.
struct dt_part {
	const struct dt_chunk *chunk;
	struct dt_heat *heat;      // the chunk's block
	uint32_t page_shift;       // log2 of the bytes of the system's page
	size_t start;              // pages of the chunk
	size_t stop;               // exclusive
	const struct dt_run *runs; // addresses
	const struct dt_run *end;  // behind the last one
};

enum { DT_PART_RUNS = DT_CHUNK_PAGES / 2 + 1 }; // room for the runs of a part

// Whether the next scan of a chunk is to look, and to arm what it finds run by run.
bool dt_heat_looks_first(const struct dt_heat *heat);
// The addresses of the part.
struct dt_run dt_part_range(const struct dt_part *part);
// Lists the part's runs, clipped to it, in out, which has room for DT_PART_RUNS; their number. So do the next two.
size_t dt_part_runs(const struct dt_part *part, struct dt_run *out);
// The written pages that were open: not seen to be written.
size_t dt_heat_assumed(const struct dt_part *part, struct dt_run *out);
// The written pages that are to be armed if others are left open; *open_ret: how many those are.
size_t dt_heat_cold(const struct dt_part *part, struct dt_run *out, size_t *open_ret);
// Takes note that all pages of the part were armed, or all but those that are left open.
void dt_heat_armed(const struct dt_part *part);
void dt_heat_left_open(const struct dt_part *part);
// Takes note that leaving pages open did not pay: none is for a while, twice as long each time.
void dt_heat_hold(struct dt_heat *heat);

#pragma GCC visibility pop
