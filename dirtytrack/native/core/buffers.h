// The memory of an epoch's results, which a session keeps for the next one. A result is sized for the worst case, and
// only what is used of it gets populated; populating it again at every collect would cost more than the scan.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../base/runs.h"

#pragma GCC visibility push(hidden)

// The pages of one region in an epoch, as runs counted from the region's first page.
struct dt_entry {
	uint64_t region;    // its identifier
	uint64_t first_run; // of run_count, in buffers.runs
	uint64_t run_count;
	uint64_t pages;         // in those runs
	uint64_t first_assumed; // of assumed_count, in buffers.assumed: pages that were not seen to be written
	uint64_t assumed_count;
};

struct dt_epoch_buffers {
	struct dt_entry *entries; // owned, as the others
	struct dt_run *runs;
	struct dt_run *assumed;
	size_t entry_room;
	size_t run_room;
	size_t assumed_room;
};

enum { DT_SPARE_BUFFERS = 2 };

// Buffers that no epoch uses. They need no lock, which would cost two system calls at the end of every epoch: who finds
// a place in somebody's hands goes on to the next one.
struct dt_spare_buffers {
	struct dt_epoch_buffers items[DT_SPARE_BUFFERS];
	uint8_t places[DT_SPARE_BUFFERS]; // what each is: free, full, or in somebody's hands; atomic
};

void dt_free_buffers(struct dt_epoch_buffers *buffers);
// Gives an epoch buffers that an earlier one has populated, if there are any; else they stay as they are.
void dt_take_buffers(struct dt_spare_buffers *spare, struct dt_epoch_buffers *buffers);
// Leaves buffers, of which so many runs were used, to later epochs, if there is need for them; then they are empty.
void dt_leave_buffers(struct dt_spare_buffers *spare, struct dt_epoch_buffers *buffers, uint64_t used_runs);
void dt_free_spare_buffers(struct dt_spare_buffers *spare);

#pragma GCC visibility pop
