// Floor 2, checkpoint: what a save captures. The scan, the copy of the written blocks into staging memory and the proof
// that nothing was written meanwhile are one call; where they do not fit, more calls copy the rest.
#pragma once

#include "../core/session.h"

// The unit on disk, whatever the page size: bytes of a region from its own first byte.
enum { DT_BLOCK = 4096 };

// A region to capture, by what Python knows of it.
struct dt_source {
	uint64_t region;
	uint64_t address; // of its first byte
	uint64_t nbytes;
	uint64_t offset; // of its first byte on its first page
	uint64_t page_size;
};

// Blocks [first, first + count) of a source.
struct dt_block_run {
	uint64_t source;
	uint64_t first;
	uint64_t count;
};

// What is to be copied, and how far the copy is. Owned by the caller; all zero at first.
struct dt_capture {
	const struct dt_source *sources;
	size_t source_count;
	struct dt_block_run *runs;
	size_t run_room, run_count;
	uint64_t blocks;    // in all runs
	size_t run;         // the next block to copy is this run's ...
	uint64_t block;     // ... and so many of its blocks are done
	uint64_t rewritten; // pages that were written between the scan and the end of the copy
	uint64_t scan_ns;   // how long the scan took
	uint64_t copy_ns;   // how long the copies have taken so far
	struct dt_session *session;
};

// A piece of staging memory: room for it before a copy, what was copied after it. Every block takes DT_BLOCK bytes.
struct dt_piece {
	uint8_t *data;
	uint64_t blocks;
	size_t run; // where in the capture's runs it begins
	uint64_t block;
};

// An empty capture, and its end; an allocator's signatures.
void *dt_capture_new(size_t size);
void dt_capture_free(void *capture);

// Collects n whole regions, the sources in their order, into the epoch; lists the blocks that their written pages
// touch (with everything: all blocks); copies as many as the pieces have room for; and, when that was all, peeks.
// The epoch holds the pages from the scan on, also when this fails.
int dt_capture(struct dt_session *session, uint64_t cursor, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch, struct dt_capture *capture, int everything, struct dt_piece *pieces,
	       size_t piece_count);
// Copies on. The memory must be what it was: the session is not asked.
void dt_capture_copy(struct dt_capture *capture, struct dt_piece *pieces, size_t piece_count);

// One byte for each block of data: 1 if it is all zeros. Returns how many are.
size_t dt_zero_blocks(const uint8_t *data, size_t bytes, uint8_t *zero);
// Starts to write a file to disk, without waiting for it. 0 or -errno.
int dt_start_writeback(int fd);
// Renames within a directory; -EEXIST if the new name is taken.
int dt_rename_new(int directory, const char *from, const char *to);
