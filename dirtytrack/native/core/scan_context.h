// What one scan needs beside the memory that it looks at: buffers that grow with the largest span and are used again.
// One scan at a time has it to itself. A session has one, for who holds its lock; a thread that is to scan beside
// others needs one of its own.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../base/runs.h"
#include "../kernel/abi.h"

#pragma GCC visibility push(hidden)

enum { DT_VEC = 512 }; // PAGEMAP_SCAN's walk_end is exact up to 512 regions a call

// A list of runs that somebody else counts.
struct dt_run_buffer {
	struct dt_run *runs; // owned
	size_t room;         // runs
};

struct dt_scan_context {
	struct dt_page_region *vec;   // DT_VEC of them, for the kernel to fill
	struct dt_run_buffer written; // by address: what a first pass found
	struct dt_run_buffer dropped; // likewise, a second one
	struct dt_run_buffer looked;  // what a scan found that armed nothing, before it is decided what to arm
	struct dt_run_buffer found;   // the result of a scan that goes to cursors and to no epoch
	struct dt_run_buffer assumed; // what the last scan found written only because it had been left open
	size_t assumed_count;         // runs in assumed
	uint8_t *bytes;               // memory that is being compared: it may change meanwhile
	size_t byte_room;
};

// All of it begins as zero. 0 or -ENOMEM.
int dt_scan_context_init(struct dt_scan_context *context);
void dt_scan_context_free(struct dt_scan_context *context);
// Makes room in all of its buffers for any scan of so many pages. 0 or -ENOMEM.
int dt_scan_context_fit(struct dt_scan_context *context, uint64_t pages);
// Makes room for the runs of any scan of so many pages; what is in the buffer is lost. 0 or -ENOMEM.
int dt_run_buffer_fit(struct dt_run_buffer *buffer, uint64_t pages);

#pragma GCC visibility pop
