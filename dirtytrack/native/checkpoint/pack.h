// From captured blocks to the segments of a file: what is new is told apart by its hash, moved together where it lies,
// and summed. What has to be written where is told to the caller, or written while it lies in the processor's cache.
#pragma once

#include <stdbool.h>

#include "block.h"
#include "checksum.h"
#include "files.h"
#include "hashes.h"

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

// Blocks that lie one behind the other, DT_BLOCK bytes for each.
struct dt_captured {
	const struct dt_block_run *runs; // what they are: these, in ascending order, ...
	uint64_t skip;                   // ... without so many blocks of the first one
	uint8_t *data;
	uint64_t blocks;
	bool everything;        // all are stored but zeros, in place where their region is linear; else what is new
	struct dt_hash *hashes; // of each block, as dt_captured_hash has them; NULL: it was not asked
};

// For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_pack_new(size_t size);
void dt_pack_free(void *pack);

// Hashes the blocks of a batch, into its hashes: what can be done by another thread than the one that adds it.
void dt_captured_hash(const struct dt_hashes *hashes, const struct dt_captured *batch);
// Adds segments with the blocks of a batch that are to be stored. Its data is what the writes, and raw segments, refer
// to from then on, until the next batch. 0; or -ENOMEM, or what writing said, and then the file can't be completed.
int dt_pack_add(struct dt_pack *pack, const struct dt_captured *batch);

#pragma GCC visibility pop
