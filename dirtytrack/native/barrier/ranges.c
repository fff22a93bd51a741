// Regions, segments and marks, changed together.
#include "ranges.h"

#include <errno.h>

#include "../base/memory.h"
#include "../core/parts.h"
#include "../core/tracking.h"

static int add(struct dt_cards *cards, uint64_t start, uint64_t stop, unsigned flags, uint64_t *first_ret)
{
	struct dt_session *session = cards->session;
	struct dt_failure failure;
	uint32_t page_shift = session->backend.page_shift;
	uint64_t page = 1ULL << page_shift, region;
	struct dt_run pages = {start & ~(page - 1), (stop + page - 1) & ~(page - 1)};
	int error = dt_cards_check_new(cards, start, stop);
	if (!error)
		error = dt_session_add(session, pages.start, pages.stop, page_shift, flags | DT_UNLISTED, &region,
				       &failure);
	if (error)
		return error;
	error = dt_cards_insert(cards, region, start, stop, first_ret);
	if (error)
		dt_session_remove(session, region);
	else
		dt_session_take_from_rivals(session, pages.start, pages.stop);
	return error;
}

int dt_ranges_add(struct dt_cards *cards, uint64_t start, uint64_t stop, unsigned flags, uint64_t *first_ret)
{
	int error = dt_cards_enter(cards);
	return error ? error : dt_leave(&cards->lock, add(cards, start, stop, flags, first_ret));
}

// What a segment becomes where it is divided. All of it is made before anything changes.
struct cut {
	struct dt_extent extents[2];
	struct dt_marked *marked[2];
	struct dt_heap_segment *high; // the new one
};

static int prepare_cut(struct dt_cards *cards, const struct dt_heap_segment *segment, uint64_t at, struct cut *cut)
{
	int error = dt_cards_fit(cards);
	cut->extents[0] = cut->extents[1] = segment->extent;
	cut->extents[0].nbytes = at - dt_segment_start(segment);
	cut->extents[1].nbytes -= cut->extents[0].nbytes;
	cut->extents[1].address = at;
	cut->extents[1].offset = 0; // of a region that begins here
	cut->high = dt_alloc(sizeof *cut->high);
	for (int i = 0; i < 2; i++)
		cut->marked[i] = dt_marked_new(&cut->extents[i]);
	return error || !cut->high || !cut->marked[0] || !cut->marked[1] ? -ENOMEM : 0;
}

static void discard(struct cut *cut)
{
	for (int i = 0; i < 2; i++)
		if (cut->marked[i])
			dt_marked_free(cut->marked[i]);
	dt_free(cut->high, sizeof *cut->high);
}

static void finish_cut(struct dt_cards *cards, struct dt_heap_segment *low, const struct cut *cut)
{
	uint64_t cards_below = cut->extents[0].nbytes >> cards->segments.card_shift;
	dt_marks_divide(&cards->marks, low->marked, cut->marked[0], cut->marked[1]);
	*cut->high = *low;
	low->extent = cut->extents[0];
	low->marked = cut->marked[0];
	cut->high->extent = cut->extents[1];
	cut->high->marked = cut->marked[1];
	cut->high->first += cards_below;
	dt_segments_insert_at_card(&cards->segments, cut->high);
	cards->outdated = true;
}

// Divides the segment that an address is in the middle of, if there is one.
static int cut_at(struct dt_cards *cards, uint64_t at)
{
	struct dt_heap_segment *segment = dt_segments_first_in(&cards->segments, at, at + 1);
	struct cut cut;
	uint64_t parts[2];
	if (!segment || dt_segment_start(segment) == at)
		return 0;
	int error = prepare_cut(cards, segment, at, &cut);
	if (!error)
		error = dt_session_divide(cards->session, segment->extent.region, at, parts);
	if (error) {
		discard(&cut);
		return error;
	}
	cut.extents[0].region = parts[0];
	cut.extents[1].region = parts[1];
	finish_cut(cards, segment, &cut);
	return 0;
}

// After [start, stop) was repaired, or removed from between what adjoins it.
static void recover(struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	struct dt_heap_segments *segments = &cards->segments;
	dt_session_recover(cards->session, start, stop);
	for (size_t i = dt_segments_ending_behind(segments, start); i < segments->count; i++) {
		struct dt_heap_segment *segment = segments->by_address[i];
		if (dt_segment_start(segment) >= stop)
			break;
		segment->lost = dt_session_is_lost(cards->session, segment->extent.region) != 0;
		cards->any_lost |= segment->lost;
		cards->outdated = true;
	}
}

static int remove_part(struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	struct dt_heap_segment *segment;
	int error = dt_cards_check_part(cards, start, stop);
	if (!error)
		error = cut_at(cards, start);
	if (!error)
		error = cut_at(cards, stop);
	if (error)
		return error;
	while ((segment = dt_segments_first_in(&cards->segments, start, stop))) {
		uint64_t region = segment->extent.region;
		dt_cards_take_out(cards, segment);
		dt_session_remove(cards->session, region);
	}
	dt_marks_inherit(&cards->marks);
	recover(cards, start - 1, stop + 1);
	return 0;
}

int dt_ranges_remove(struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	int error = dt_cards_enter(cards);
	return error ? error : dt_leave(&cards->lock, remove_part(cards, start, stop));
}

void dt_ranges_remove_all(struct dt_cards *cards)
{
	if (dt_cards_enter(cards))
		return;
	while (cards->segments.count) {
		struct dt_heap_segment *last = cards->segments.by_address[cards->segments.count - 1];
		uint64_t region = last->extent.region;
		dt_cards_take_out(cards, last);
		dt_session_remove(cards->session, region);
	}
	dt_leave(&cards->lock, 0);
}

static int replace_part(struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	struct dt_heap_segments *segments = &cards->segments;
	struct dt_failure failure;
	int error = dt_cards_check_part(cards, start, stop);
	if (error)
		return error;
	for (size_t i = dt_segments_ending_behind(segments, start); !error && i < segments->count; i++) {
		const struct dt_extent *extent = &segments->by_address[i]->extent;
		const struct dt_run whole = {extent->address, extent->address + extent->nbytes};
		struct dt_run part = dt_run_clip((struct dt_run){start, stop}, whole);
		if (part.start >= part.stop)
			break;
		uint64_t mask = extent->page_size - 1;
		struct dt_run pages = {part.start & ~mask, (part.stop + mask) & ~mask};
		error = dt_session_replace(cards->session, extent->region, pages.start, pages.stop, &failure);
		if (!error)
			dt_session_take_from_rivals(cards->session, pages.start, pages.stop);
	}
	recover(cards, start, stop);
	return error;
}

int dt_ranges_replace(struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	int error = dt_cards_enter(cards);
	return error ? error : dt_leave(&cards->lock, replace_part(cards, start, stop));
}

long dt_ranges_list(struct dt_cards *cards, bool lost_only, struct dt_range *ranges, size_t room)
{
	const struct dt_heap_segments *segments = &cards->segments;
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	size_t n = 0;
	for (size_t i = 0; i < segments->count; i++) {
		const struct dt_heap_segment *segment = segments->by_address[i];
		if (lost_only && !segment->lost)
			continue;
		if (n++ < room)
			ranges[n - 1] = (struct dt_range){
				.start = (void *)(uintptr_t)dt_segment_start(segment),
				.bytes = segment->extent.nbytes,
				.first_card = segment->first,
				.cards = dt_segment_cards(segments, segment),
			};
	}
	dt_leave(&cards->lock, 0);
	return (long)n;
}
