// Two sorted lists, and the gaps between cards.
#include "segments.h"

#include <string.h>

#include "../base/array.h"
#include "../base/memory.h"

int dt_segments_fit(struct dt_heap_segments *segments, size_t more)
{
	size_t count = segments->count + more;
	int error = dt_grow(&segments->by_card, &segments->card_room, count, sizeof *segments->by_card);
	return error ? error
		     : dt_grow(&segments->by_address, &segments->address_room, count, sizeof *segments->by_address);
}

void dt_segments_free(struct dt_heap_segments *segments)
{
	for (size_t i = 0; i < segments->count; i++)
		dt_free(segments->by_card[i], sizeof *segments->by_card[i]);
	dt_free(segments->by_card, segments->card_room * sizeof *segments->by_card);
	dt_free(segments->by_address, segments->address_room * sizeof *segments->by_address);
}

// One more than the last card of the segment at an index.
static uint64_t end_of(const struct dt_heap_segments *segments, size_t at)
{
	return segments->by_card[at]->first + dt_segment_cards(segments, segments->by_card[at]);
}

// The first card from which on a range may lie behind the segment before an index: each begins with a byte of the map.
static uint64_t end_before(const struct dt_heap_segments *segments, size_t at)
{
	return at ? (end_of(segments, at - 1) + 7) & ~7ULL : 0;
}

// Whether so many cards fit in front of the segment at an index. What lies between parts of one range stays free for
// what they lost.
static bool fits_before(const struct dt_heap_segments *segments, size_t at, uint64_t cards)
{
	if (at == segments->count)
		return true;
	if (at && segments->by_card[at - 1]->range == segments->by_card[at]->range)
		return false;
	return end_before(segments, at) + cards <= segments->by_card[at]->first;
}

// Where a new range goes: into the first gap that it fits.
static size_t find_gap(struct dt_heap_segments *segments, uint64_t cards)
{
	size_t at = segments->first_gap;
	while (at < segments->count && !fits_before(segments, at, 1))
		at++;
	segments->first_gap = at;
	while (!fits_before(segments, at, cards))
		at++;
	return at;
}

size_t dt_segments_ending_behind(const struct dt_heap_segments *segments, uint64_t address)
{
	size_t low = 0, high = segments->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (dt_segment_stop(segments->by_address[middle]) > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

// The index by card of the first segment that begins at a card, or behind it.
static size_t at_card(const struct dt_heap_segments *segments, uint64_t card)
{
	size_t low = 0, high = segments->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (segments->by_card[middle]->first < card)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void insert(struct dt_heap_segment **list, size_t count, size_t at, struct dt_heap_segment *segment)
{
	memmove(list + at + 1, list + at, (count - at) * sizeof *list);
	list[at] = segment;
}

static void take_out(struct dt_heap_segment **list, size_t count, size_t at)
{
	memmove(list + at, list + at + 1, (count - at - 1) * sizeof *list);
}

void dt_segments_insert_at_card(struct dt_heap_segments *segments, struct dt_heap_segment *segment)
{
	insert(segments->by_card, segments->count, at_card(segments, segment->first), segment);
	insert(segments->by_address, segments->count, dt_segments_ending_behind(segments, dt_segment_start(segment)),
	       segment);
	segments->count++;
}

// The part of a range in front of a segment, if there is one behind it, too; or NULL.
static const struct dt_heap_segment *part_before(const struct dt_heap_segments *segments,
						 const struct dt_heap_segment *segment)
{
	size_t behind = dt_segments_ending_behind(segments, dt_segment_start(segment));
	if (!behind || behind == segments->count)
		return NULL;
	const struct dt_heap_segment *before = segments->by_address[behind - 1];
	return before->range == segments->by_address[behind]->range ? before : NULL;
}

void dt_segments_insert(struct dt_heap_segments *segments, struct dt_heap_segment *segment)
{
	const struct dt_heap_segment *before = part_before(segments, segment);
	if (before) {
		uint64_t distance = dt_segment_start(segment) - dt_segment_start(before);
		segment->range = before->range;
		segment->first = before->first + (distance >> segments->card_shift);
	} else {
		size_t gap = find_gap(segments, dt_segment_cards(segments, segment));
		segment->range = ++segments->last_range;
		segment->first = end_before(segments, gap);
	}
	dt_segments_insert_at_card(segments, segment);
}

void dt_segments_take_out(struct dt_heap_segments *segments, const struct dt_heap_segment *segment)
{
	size_t place = at_card(segments, segment->first);
	take_out(segments->by_address, segments->count, dt_segments_ending_behind(segments, dt_segment_start(segment)));
	take_out(segments->by_card, segments->count, place);
	segments->count--;
	segments->first_gap = place < segments->first_gap ? place : segments->first_gap;
}

struct dt_heap_segment *dt_segments_first_in(const struct dt_heap_segments *segments, uint64_t start, uint64_t stop)
{
	size_t at = dt_segments_ending_behind(segments, start);
	bool is_in = at < segments->count && dt_segment_start(segments->by_address[at]) < stop;
	return is_in ? segments->by_address[at] : NULL;
}

struct dt_heap_segment *dt_segments_find(const struct dt_heap_segments *segments, uint64_t start)
{
	struct dt_heap_segment *segment = dt_segments_first_in(segments, start, UINT64_MAX);
	return segment && dt_segment_start(segment) == start ? segment : NULL;
}

bool dt_segments_cover(const struct dt_heap_segments *segments, uint64_t start, uint64_t stop)
{
	size_t at = dt_segments_ending_behind(segments, start);
	for (; at < segments->count && dt_segment_start(segments->by_address[at]) <= start && start < stop; at++)
		start = dt_segment_stop(segments->by_address[at]);
	return start >= stop;
}

uint64_t dt_segments_all_cards(const struct dt_heap_segments *segments)
{
	return segments->count ? end_of(segments, segments->count - 1) : 0;
}
