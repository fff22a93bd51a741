// One chunk of armed small pages on its way back to a huge page. The kernel puts no armed pages together, so they have
// to be opened, and what is stored meanwhile has to be found by comparing:
//
//	copy      the contents, before anything is opened
//	look      some of it is written: it is not cold, and stays as it is
//	open      from here on stores leave no mark. One since the look differs from the copy
//	collapse  takes 200 us, and up to 60 ms if the kernel has to make room
//	arm       from here on stores leave a mark again
//	compare   what differs from the copy was written
//
// Who wants to know what is written meanwhile does not wait: it lands the chunk, which arms and compares; the kernel
// refuses the collapse then, or has done it. What is named "in the lock" has the session's, and takes some 20 us; the
// rest takes place outside of all locks.
#pragma once

#include "../core/backend.h"
#include "chunks.h"

#pragma GCC visibility push(hidden)

enum dt_stage {
	DT_GROUNDED, // there is none
	DT_COPIED,   // or being copied; nothing else has happened
	DT_OPENED,
	DT_ARMED, // and not compared yet
};

// A bit for each page of a chunk.
struct dt_chunk_pages {
	uint64_t words[DT_CHUNK_PAGES / 64];
};

struct dt_collapse {
	enum dt_stage stage;
	bool failed; // it could not be armed: all of it counts as written
	struct dt_span chunk;
	uint8_t *copy;                  // the size of a chunk; its thread writes it, before it opens the chunk
	uint8_t *piece;                 // what is being compared, for who has the lock
	uint8_t *threads_piece;         // likewise, for the thread
	struct dt_scan_context context; // for who has the lock
};

// 0 or -ENOMEM; either way it can be freed.
int dt_collapse_init(struct dt_collapse *collapse, uint32_t page_shift);
void dt_collapse_free(struct dt_collapse *collapse, uint32_t page_shift);

// Whether memory is mapped by a huge page, of private memory.
bool dt_is_on_huge_page(const struct dt_backend *plain, uint64_t start);
// In the lock: whether every page of a chunk is there, and nobody else's: putting others together costs memory, or
// reads it from a disk. *written_ret: whether some page is open.
bool dt_can_collapse(const struct dt_backend *plain, uint64_t start, bool *written_ret);

// The steps of the thread. Nothing is done in one whose stage is over, since somebody has landed the chunk.

// In the lock.
void dt_collapse_begin(struct dt_collapse *collapse, const struct dt_span *chunk);
// 0 or -errno.
int dt_collapse_copy(struct dt_collapse *collapse);
// In the lock: looks, and opens. False: it is written, or not ours, and stays as it is.
bool dt_collapse_open(struct dt_collapse *collapse, struct dt_backend *plain);
void dt_collapse_run(const struct dt_collapse *collapse);
// In the lock. False: it was landed.
bool dt_collapse_arm(struct dt_collapse *collapse, struct dt_backend *plain);
struct dt_chunk_pages dt_collapse_compare(const struct dt_collapse *collapse);

// In the lock: ends it, whatever stage it is in; the pages that were written meanwhile.
struct dt_chunk_pages dt_collapse_land(struct dt_collapse *collapse, struct dt_backend *plain);

#pragma GCC visibility pop
