// How hot pages are: which of a chunk are armed scan after scan in vain, and are left open instead.
#pragma once

#include <stdbool.h>

#include "../base/runs.h"
#include "chunks.h"

struct dt_heat {
	uint8_t pages[DT_CHUNK_PAGES];
	uint16_t open;       // pages
	uint16_t candidates; // those that the next scan would open, if it finds them written
	uint16_t tested;
	uint8_t unconfirmed; // which share, of 255, of the tested pages were not written, of late
	uint8_t is_warm;     // some page is not cold
	uint8_t hold;        // scans in which none is opened: it did not pay
	uint8_t next_hold;
};

// Pages [first, last) of a chunk, and the runs of a scan that may touch them.
struct dt_part {
	const struct dt_chunk *chunk;
	struct dt_heat *heat;
	uint32_t page_shift;
	size_t first, last;
	const struct dt_run *runs, *end;
};

enum { DT_PART_RUNS = DT_CHUNK_PAGES / 2 + 1 }; // room for the runs of a part

// Whether the next scan of a chunk is to look, and to arm what it finds run by run.
bool dt_heat_looks_first(const struct dt_heat *heat);
// The addresses of the part.
struct dt_run dt_part_range(const struct dt_part *part);
// The part's runs, clipped to it; their number.
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
// Adds a run behind the last one, with which it may touch or overlap.
size_t dt_run_append(struct dt_run *out, size_t n, struct dt_run run);
