// The segments of a card table: which part of the heap has which cards. A segment begins and ends on a card. It is
// found by its cards and by its address.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/extent.h"
#include "marks.h"

#pragma GCC visibility push(hidden)

struct dt_heap_segment {
	struct dt_extent extent;
	uint64_t first;           // its first card
	uint64_t range;           // the number of the range that was added, of which it may be what is left
	bool lost;                // its memory is no longer what was added
	struct dt_marked *marked; // what was declared written since the last look
};

struct dt_heap_segments {
	uint32_t card_shift;
	struct dt_heap_segment **by_card;    // count of them; owned, as they are
	struct dt_heap_segment **by_address; // the same ones
	size_t count;
	size_t card_room;
	size_t address_room;
	size_t first_gap;    // no segment before this one leaves a gap in front of it that anybody may have
	uint64_t last_range; // the highest number of a range
};

static inline uint64_t dt_segment_start(const struct dt_heap_segment *segment)
{
	return segment->extent.address;
}

static inline uint64_t dt_segment_stop(const struct dt_heap_segment *segment)
{
	return segment->extent.address + segment->extent.nbytes;
}

static inline uint64_t dt_segment_cards(const struct dt_heap_segments *segments, const struct dt_heap_segment *segment)
{
	return segment->extent.nbytes >> segments->card_shift;
}

// Makes room for so many more. 0 or -ENOMEM.
int dt_segments_fit(struct dt_heap_segments *segments, size_t more);
// Inserts a segment, for which there is room, and gives it its cards: between parts of one range those that it has had
// there, else the first gap that they fit, from a multiple of 8 on. It is the table's own from here on.
void dt_segments_insert(struct dt_heap_segments *segments, struct dt_heap_segment *segment);
// Inserts one that has its cards and its range.
void dt_segments_insert_at_card(struct dt_heap_segments *segments, struct dt_heap_segment *segment);
// Takes one out, which is the caller's again.
void dt_segments_take_out(struct dt_heap_segments *segments, const struct dt_heap_segment *segment);
void dt_segments_free(struct dt_heap_segments *segments);

// The index by address of the first segment that ends behind an address; count if none does.
size_t dt_segments_ending_behind(const struct dt_heap_segments *segments, uint64_t address);
// The first segment that has some of [start, stop), or NULL.
struct dt_heap_segment *dt_segments_first_in(const struct dt_heap_segments *segments, uint64_t start, uint64_t stop);
// The segment that begins at an address, or NULL.
struct dt_heap_segment *dt_segments_find(const struct dt_heap_segments *segments, uint64_t start);
// Whether segments have all of [start, stop).
bool dt_segments_cover(const struct dt_heap_segments *segments, uint64_t start, uint64_t stop);
// One more than the last card of any segment.
uint64_t dt_segments_all_cards(const struct dt_heap_segments *segments);

#pragma GCC visibility pop
