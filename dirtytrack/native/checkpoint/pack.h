// From captured blocks to the segments of a file: what is new is told apart by its hash, moved together where it lies,
// and summed. What has to be written where is told to the caller, or written while it lies in the processor's cache.
#pragma once

#include <stdbool.h>

#include "captured.h"
#include "checksum.h"
#include "files.h"

#pragma GCC visibility push(hidden)

// How a segment is stored. Other numbers are codecs, which are the caller's.
enum {
	DT_STORED_ZEROS = 0,
	DT_STORED_RAW = 1,
	DT_STORED_IN_PLACE = 3, // where the linear regions of its runs have them
};

enum { DT_SEGMENT_RUNS = 1024 }; // that a segment has at most

struct dt_segment {
	uint32_t encoding;
	uint32_t runs;
	uint64_t offset; // 0: none
	uint64_t length; // of the stored bytes
	uint64_t checksum;
	const uint8_t *data; // the bytes of a raw one, until the piece that they lie in is used again
};

// What goes into one file. One thread's at a time; all zero at first, but for what the caller sets.
struct dt_pack {
	struct dt_hashes *hashes; // NULL: everything is new
	const uint64_t *sizes;    // of each region, in bytes; the caller's
	const uint64_t *linear;   // of each region, where it is laid out in the file, 0: nowhere; the caller's; or NULL
	uint64_t limit;           // bytes of blocks in a segment
	uint64_t place_limit;     // of those in one that is in place
	uint64_t end;             // of the file, so far
	bool apart;               // the caller stores the raw segments, and sets their offsets
	uint64_t blocks;          // stored so far, zeros included
	uint64_t plain;           // bytes of those that are not zeros
	struct dt_block_run *runs; // of all segments so far; owned
	size_t run_room;
	size_t run_count;
	struct dt_segment *segments; // so far; owned
	size_t segment_room;
	size_t segment_count;
	struct dt_block_run *zeros; // owned
	size_t zero_room;
	size_t zero_count;
	const int *file;  // the descriptor of the file, to which what has to be written is, in part; NULL: nowhere
	uint64_t written; // bytes that had to be written so far
	struct dt_write *writes; // what the last batch, or the end, has to be written, and was not; owned
	size_t write_room;
	size_t write_count;
	uint64_t waiting; // bytes of that
	size_t batch;     // the first segment of it
	struct dt_checksum sum;
	uint8_t *tail; // what follows the last segment, once that is known; owned
	size_t tail_room;
};

// For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_pack_new(size_t size);
void dt_pack_free(void *pack);

// Adds segments with the blocks of a batch that are to be stored. Its data is what the writes, and raw segments, refer
// to from then on, until the next batch. 0; or -ENOMEM, or what writing said, and then the file can't be completed.
int dt_pack_add(struct dt_pack *pack, const struct dt_captured *batch);
// Gives the segments [first, stop) that the caller stores, and has encoded where that is worth it, their places behind
// one another, and those that are encoded the sum of their bytes. They are what has to be written then, and nothing
// else is. 0 or -ENOMEM.
int dt_pack_place(struct dt_pack *pack, size_t first, size_t stop);

#pragma GCC visibility pop
