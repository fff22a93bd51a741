// What one call asks for, in the order of addresses: what lies side by side is scanned at once.
#pragma once

#include "regions.h"

#pragma GCC visibility push(hidden)

// Pages of one region.
struct dt_request {
	struct dt_region *region;
	uint64_t start;     // address of the first one
	uint64_t stop;      // exclusive
	size_t entry;       // of the epoch
	size_t first_slice; // of the region
};

// Those of one call; the next one uses the memory again.
struct dt_requests {
	struct dt_request
		*items; // count of them: by the region's start if it is asked for whole, like regions.by_address
	size_t count;
	size_t room;
	struct dt_request *merged; // what items become while they are put in order
	size_t merged_room;
	size_t entries; // how many regions are asked for
};

// Asks for all pages of all regions that are listed; their entries are in the order of addresses. 0 or -ENOMEM.
int dt_request_all(const struct dt_regions *regions, struct dt_requests *requests);
// Asks for n slices, those of a region next to each other; the entries are in the order of their regions. 0, -ENOMEM,
// or -DT_ECLOSED: there is no such region.
int dt_request_slices(const struct dt_regions *regions, const struct dt_slice *slices, size_t n,
		      struct dt_requests *requests);
// The most runs that pages of the system's size can make of what is asked for.
uint64_t dt_requests_most_runs(const struct dt_requests *requests, uint32_t page_shift);
void dt_free_requests(struct dt_requests *requests);

// Behind the last one. (NULL + 0 is undefined, and clang's sanitizer says so.)
static inline const struct dt_request *dt_requests_end(const struct dt_requests *requests)
{
	return requests->count ? requests->items + requests->count : requests->items;
}

static inline bool dt_is_whole(const struct dt_request *request)
{
	return request->start == request->region->start && request->stop == request->region->stop;
}

// Requests whose pages are of one kind, and overlap or adjoin one after another; those of lost regions are not looked
// at.
struct dt_batch {
	const struct dt_request *first;
	const struct dt_request *stop; // exclusive
	struct dt_span span;           // of all of them
};

// Goes on to the batch behind this one, which begins as zero. False: there is none.
bool dt_next_batch(const struct dt_requests *requests, struct dt_batch *batch);

#pragma GCC visibility pop
