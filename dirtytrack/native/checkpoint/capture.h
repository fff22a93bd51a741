// What a save captures. The scan, the copy of the written blocks into staging memory and the proof that nothing was
// written meanwhile are one call; where they do not fit, more calls copy the rest.
#pragma once

#include <stdbool.h>

#include "../base/extent.h"
#include "../core/access.h"
#include "../core/collect.h"
#include "block.h"

#pragma GCC visibility push(hidden)

// What is to be copied, and what was so far. Owned by the caller, one thread's at a time; all zero at first. All runs
// are in the order of the extents, and then of the blocks.
struct dt_capture {
	const struct dt_extent *extents; // extent_count of them, the caller's
	size_t extent_count;
	const bool *revoked;         // the caller's, or NULL: whether nothing may be taken or copied for it any more
	bool stops;                  // the caller's: whether other threads are stopped, if the session does that
	bool stopped;                // whether they were, for scan, copy and proof; the epoch says which were not
	bool everything;             // not what was written alone: blocks of zeros are left out
	struct dt_block_run *wanted; // owned
	size_t wanted_room;
	size_t wanted_count;
	uint64_t blocks;           // in all of them
	size_t run;                // the next block to copy is this run's ...
	uint64_t block;            // ... and so many of its blocks are done
	struct dt_block_run *runs; // what was copied; they don't move from the first copy on; owned
	size_t run_room;
	size_t run_count;
	uint64_t copied;    // blocks in them
	uint64_t rewritten; // pages that were written between the scan and the end of the copy
	uint64_t scan_ns;   // how long the scan took
	uint64_t copy_ns;   // how long the copies have taken so far
	struct dt_session *session;
};

// A piece of staging memory. Every block takes DT_BLOCK bytes.
struct dt_piece {
	uint8_t *data;   // the caller's
	uint64_t blocks; // before a copy: for which there is room; after it: that were copied
	size_t run;      // after it: where in the capture's runs it begins ...
	uint64_t block;  // ... and with which block of that run
};

// An empty capture, and its end. For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_capture_new(size_t size);
void dt_capture_free(void *capture);

// Collects n whole regions, those of the capture's extents in their order, into the epoch; lists the blocks that their
// written pages touch; copies as many as the pieces have room for; and, when that was all, peeks. The epoch holds the
// pages from the scan on, also when this fails. -EFAULT: some of it can't be read now.
//
// hollow: NULL; or for each region, and then all blocks are listed, 1 if what is not populated of it is zeros, which is
// neither touched nor listed, else 0.
//
// In a session that stops other threads, with capture->stops, they are stopped for the scan, and go on after the proof,
// if all blocks fit the pieces, else after the scan.
//
// A capture that is revoked takes and copies nothing: the memory of the pieces is somebody else's then.
int dt_capture(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch, struct dt_capture *capture, const uint8_t *hollow, struct dt_piece *pieces,
	       size_t piece_count);
// Copies on. The memory must be what it was: the session is not asked. 0; or -errno with *failure, -EFAULT where it
// can't be read now.
int dt_capture_copy(struct dt_capture *capture, struct dt_piece *pieces, size_t piece_count,
		    struct dt_failure *failure);

#pragma GCC visibility pop
