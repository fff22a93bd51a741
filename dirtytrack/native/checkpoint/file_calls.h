// What a new file needs, in one call: beside threads that compute, each entry from Python costs 5 ms.
#pragma once

#include "ending.h"
#include "files.h"

#pragma GCC visibility push(hidden)

enum dt_file_act {
	DT_CREATE,       // openat; the file's descriptor is set
	DT_PACK,         // dt_pack_add, which writes to the file as it goes, if there is one
	DT_PACK_PLACE,   // dt_pack_place
	DT_PACK_END,     // dt_pack_end
	DT_WRITE_PACKED, // dt_write_all, of what the pack has to be written still
	DT_WRITE,        // dt_write_all
	DT_WRITEBACK,    // dt_start_writeback
	DT_CLAIM,        // dt_claim_holds; -EAGAIN: it does not
	DT_FSYNC,
	DT_CLOSE,          // the descriptor is -1 then, whatever close says
	DT_RENAME,         // dt_rename_new
	DT_SYNC_DIRECTORY, // dt_sync_directory
};

struct dt_file_call {
	int act;
	int directory;                 // DT_CREATE, DT_RENAME, DT_SYNC_DIRECTORY
	int *file;                     // the descriptor of the file, in all other calls on files and in DT_CREATE
	const struct dt_write *pieces; // DT_WRITE: count of them
	size_t count;
	struct dt_pack *pack;            // DT_PACK, DT_PACK_PLACE, DT_PACK_END, DT_WRITE_PACKED
	size_t first, stop;              // DT_PACK_PLACE: of its segments
	const struct dt_captured *batch; // DT_PACK
	const struct dt_ending *ending;  // DT_PACK_END
	const struct dt_claim *claim;    // DT_CLAIM
	const char *name, *new_name;     // DT_RENAME; the first one: DT_CREATE
};

// Makes n calls, up to the first that fails. 0 or -errno of that; *done_ret: how many were made before it.
int dt_file_calls(const struct dt_file_call *calls, size_t n, size_t *done_ret);

#pragma GCC visibility pop
