// The tracked regions of a session, by address and by identifier. The session's lock protects all of it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../include/dirtytrack.h"
#include "span.h"

#pragma GCC visibility push(hidden)

// Flags of a region, beside DT_SPARSE.
enum dt_region_flags {
	DT_LOST = 2, // its memory is no longer what was registered; stays so until the region is removed
	// Only who knows its identifier looks at it: a native runtime's, of which the session's opener knows nothing.
	DT_UNLISTED = 4,
};

// A tracked range of whole pages.
struct dt_region {
	uint64_t id;         // never used again in the session; the low 32 bits are its slot
	uint64_t start;      // address of its first page
	uint64_t stop;       // exclusive
	uint64_t reach;      // the highest stop of this region and of those before it by address
	uint32_t page_shift; // log2 of the bytes of a page
	uint32_t flags;      // DT_SPARSE, DT_LOST, DT_UNLISTED
};

// Pages [start, stop) of a region, counted from its first page; stop is exclusive.
struct dt_slice {
	uint64_t region; // its identifier
	uint64_t start;
	uint64_t stop;
};

// All regions.
struct dt_regions {
	struct dt_region **by_address; // count of them, by their start; owned, as they are
	size_t count;
	size_t room;
	struct dt_region **slots; // by the low half of their identifier; NULL: free
	size_t slot_room;
	size_t first_free_slot; // none below it is free
	size_t lost_count;      // how many are lost
	uint64_t generation;    // rises with every insertion and every removal of one that is listed
};

static inline uint64_t dt_region_pages(const struct dt_region *region)
{
	return (region->stop - region->start) >> region->page_shift;
}

// Whether regions are of one kind, so that they can be scanned at once, and share pages.
static inline bool dt_are_alike(const struct dt_region *a, const struct dt_region *b)
{
	return a->page_shift == b->page_shift && !((a->flags ^ b->flags) & DT_SPARSE);
}

// [start, stop) as a span of the region's kind.
static inline struct dt_span dt_span_like(const struct dt_region *region, uint64_t start, uint64_t stop)
{
	return (struct dt_span){start, stop, region->page_shift, region->flags & DT_SPARSE};
}

// The region of this identifier; NULL: it was removed.
struct dt_region *dt_find_region(const struct dt_regions *regions, uint64_t id);
// The index by address of the first region that may touch addresses from start on; later ones may still lie below it.
size_t dt_first_touching(const struct dt_regions *regions, uint64_t start);
// Loops over the regions that touch addresses [from, to), in order.
#define for_each_touching(region, regions, from, to)                                          \
	for (size_t index = dt_first_touching(regions, from);                                 \
	     index < (regions)->count && (regions)->by_address[index]->start < (to); index++) \
		if (((region) = (regions)->by_address[index])->stop > (from))

// Makes a region like this one, under an identifier that begins with a serial number, and room to insert it. It is the
// caller's until it is inserted. 0 or -ENOMEM.
int dt_new_region(struct dt_regions *regions, const struct dt_region *like, uint64_t serial,
		  struct dt_region **region_ret);
void dt_insert_region(struct dt_regions *regions, struct dt_region *region);
// Takes a region out of the table; it is the caller's again.
void dt_take_out_region(struct dt_regions *regions, struct dt_region *region);
// Flags a region as lost, and takes that back.
void dt_lose_region(struct dt_regions *regions, struct dt_region *region);
void dt_recover_region(struct dt_regions *regions, struct dt_region *region);
// Frees the tables, which have to be empty.
void dt_free_regions(struct dt_regions *regions);

#pragma GCC visibility pop
