// Putting requests in order, and finding what lies side by side.
#include "requests.h"

#include <string.h>

#include "../base/array.h"
#include "../base/memory.h"

static int make_room(struct dt_requests *requests, size_t n)
{
	requests->count = requests->entries = 0;
	return dt_make_room(&requests->items, &requests->room, n, sizeof *requests->items);
}

int dt_request_all(const struct dt_regions *regions, struct dt_requests *requests)
{
	int error = make_room(requests, regions->count);
	if (error)
		return error;
	for (size_t i = 0; i < regions->count; i++) {
		struct dt_region *region = regions->by_address[i];
		if (region->flags & DT_UNLISTED)
			continue;
		size_t entry = requests->count++;
		requests->items[entry] = (struct dt_request){region, region->start, region->stop, .entry = entry};
	}
	requests->entries = requests->count;
	return 0;
}

// As regions are kept by address: of those that begin at the same one, the older one comes first.
static bool is_before(const struct dt_request *a, const struct dt_request *b)
{
	return a->start != b->start ? a->start < b->start : a->region->id >> 32 < b->region->id >> 32;
}

// The end of the ascending requests that begin with this one.
static size_t ascending_to(const struct dt_requests *requests, size_t at)
{
	const struct dt_request *items = requests->items;
	if (at == requests->count)
		return at;
	for (at++; at < requests->count && !is_before(&items[at], &items[at - 1]); at++)
		;
	return at;
}

// Merges each two neighbours among the ascending stretches; returns whether that made it one.
static bool merge(struct dt_requests *requests)
{
	struct dt_request *items = requests->items, *out = requests->merged;
	bool is_one = true;
	for (size_t start = 0, stop; start < requests->count; start = stop) {
		size_t middle = ascending_to(requests, start), a = start, b = middle;
		stop = ascending_to(requests, middle);
		is_one &= start == 0;
		while (a < middle && b < stop)
			*out++ = is_before(&items[b], &items[a]) ? items[b++] : items[a++];
		memcpy(out, &items[a], (middle - a) * sizeof *out);
		out += middle - a;
		memcpy(out, &items[b], (stop - b) * sizeof *out);
		out += stop - b;
	}
	return is_one;
}

// Callers mostly ask in the order of addresses, or in some stretches of it: then it takes one look, or few.
static int sort(struct dt_requests *requests)
{
	if (ascending_to(requests, 0) == requests->count)
		return 0;
	int error = dt_make_room(&requests->merged, &requests->merged_room, requests->room, sizeof *requests->merged);
	for (bool is_sorted = false; !error && !is_sorted;) {
		is_sorted = merge(requests);
		struct dt_request *items = requests->items;
		size_t room = requests->room;
		requests->items = requests->merged;
		requests->room = requests->merged_room;
		requests->merged = items;
		requests->merged_room = room;
	}
	return error;
}

int dt_request_slices(const struct dt_regions *regions, const struct dt_slice *slices, size_t n,
		      struct dt_requests *requests)
{
	int error = make_room(requests, n);
	if (error)
		return error;
	size_t first = 0;
	for (size_t i = 0; i < n; i++) {
		struct dt_region *region = dt_find_region(regions, slices[i].region);
		if (!region)
			return -DT_ECLOSED;
		if (i == 0 || slices[i].region != slices[first].region) {
			requests->entries++;
			first = i;
		}
		requests->items[i] = (struct dt_request){
			.region = region,
			.start = region->start + (slices[i].start << region->page_shift),
			.stop = region->start + (slices[i].stop << region->page_shift),
			.entry = requests->entries - 1,
			.first_slice = first,
		};
	}
	requests->count = n;
	return sort(requests);
}

uint64_t dt_requests_most_runs(const struct dt_requests *requests, uint32_t page_shift)
{
	uint64_t runs = 0;
	for (const struct dt_request *at = requests->items; at < dt_requests_end(requests); at++)
		runs += (((at->stop - at->start) >> page_shift) + 1) / 2;
	return runs;
}

void dt_free_requests(struct dt_requests *requests)
{
	dt_free(requests->items, requests->room * sizeof *requests->items);
	dt_free(requests->merged, requests->merged_room * sizeof *requests->merged);
	*requests = (struct dt_requests){0};
}

static bool is_lost(const struct dt_request *request)
{
	return request->region->flags & DT_LOST;
}

bool dt_next_batch(const struct dt_requests *requests, struct dt_batch *batch)
{
	const struct dt_request *end = dt_requests_end(requests);
	const struct dt_request *at = batch->stop ? batch->stop : requests->items;
	while (at < end && is_lost(at))
		at++;
	if (at == end)
		return false;
	const struct dt_region *like = at->region;
	*batch = (struct dt_batch){.first = at, .span = dt_span_like(like, at->start, at->stop)};
	for (; at < end && at->start <= batch->span.stop; at++) {
		if (is_lost(at))
			continue;
		if (!dt_are_alike(at->region, like))
			break;
		if (at->stop > batch->span.stop)
			batch->span.stop = at->stop;
	}
	batch->stop = at;
	return true;
}
