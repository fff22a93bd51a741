// From segments to slices, again as often as it takes to find the lost ones.
#include "look.h"

#include "../core/collect.h"
#include "../core/tracking.h"

struct dt_look dt_look_at_all(const struct dt_cards *cards)
{
	return (struct dt_look){.stop = cards->segments.count, .bytes = {0, UINT64_MAX}, .is_all = true};
}

struct dt_look dt_look_at(const struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	const struct dt_heap_segments *segments = &cards->segments;
	size_t first = dt_segments_ending_behind(segments, start), end = first;
	while (end < segments->count && dt_segment_start(segments->by_address[end]) < stop)
		end++;
	return (struct dt_look){first, end, {start, stop}, false};
}

struct dt_run dt_look_part(const struct dt_look *look, const struct dt_heap_segment *segment)
{
	uint64_t start = dt_segment_start(segment);
	struct dt_run part = dt_run_clip(look->bytes, (struct dt_run){start, dt_segment_stop(segment)});
	return (struct dt_run){part.start - start, part.stop - start};
}

// The slices of the segments that are not known to be lost; how many.
static size_t list_slices(const struct dt_cards *cards, const struct dt_look *look, struct dt_slice *slices)
{
	size_t n = 0;
	for_each_looked_at(segment, cards, look)
	{
		if (segment->lost)
			continue;
		struct dt_run pages = dt_extent_pages_of(&segment->extent, dt_look_part(look, segment));
		slices[n++] = (struct dt_slice){segment->extent.region, pages.start, pages.stop};
	}
	return n;
}

// A look at everything uses the list of the last one, if nothing has changed.
static const struct dt_slice *slices_of(struct dt_cards *cards, const struct dt_look *look, size_t *n_ret)
{
	if (!look->is_all) {
		*n_ret = list_slices(cards, look, cards->part_slices);
		return cards->part_slices;
	}
	if (cards->outdated)
		cards->slice_count = list_slices(cards, look, cards->slices);
	cards->outdated = false;
	*n_ret = cards->slice_count;
	return cards->slices;
}

// Notes which segments are lost by now; a region that somebody else has removed is. Returns whether there is a new one.
static bool find_lost(struct dt_cards *cards, const struct dt_look *look)
{
	bool found = false;
	for_each_looked_at(segment, cards, look)
	{
		int lost = segment->lost ? 0 : dt_session_is_lost(cards->session, segment->extent.region);
		if (lost == 1 || lost == -DT_ECLOSED)
			segment->lost = found = true;
	}
	cards->outdated |= found;
	cards->any_lost |= found;
	return found;
}

// Another one on the same session may have replaced what a segment had lost.
static void find_recovered(struct dt_cards *cards, const struct dt_look *look)
{
	bool any = false;
	for_each_looked_at(segment, cards, look)
	{
		if (!segment->lost)
			continue;
		segment->lost = dt_session_is_lost(cards->session, segment->extent.region) != 0;
		cards->outdated |= !segment->lost;
		any |= segment->lost;
	}
	if (look->is_all)
		cards->any_lost = any;
}

static void mark(void *context, struct dt_run addresses)
{
	dt_session_mark_range(context, addresses.start, addresses.stop);
}

// Gives the session what was marked since the last look.
static void hand_over_marks(struct dt_cards *cards, const struct dt_look *look)
{
	dt_marks_inherit(&cards->marks);
	if (!look->is_all || dt_marks_any(&cards->marks))
		for_each_looked_at(segment, cards, look) dt_marks_take(segment->marked, mark, cards->session);
}

int dt_look_do(struct dt_cards *cards, const struct dt_look *look, int verb)
{
	hand_over_marks(cards, look);
	if (cards->any_lost)
		find_recovered(cards, look);
	for (;;) {
		size_t n;
		const struct dt_slice *slices = slices_of(cards, look, &n);
		int error =
			dt_collect_within(&cards->lock, cards->session, cards->cursor, verb, slices, n, &cards->epoch);
		bool again = (error == -DT_ELOST || error == -DT_ECLOSED) && !dt_session_usable(cards->session);
		if (!again || !find_lost(cards, look))
			return error;
	}
}

int dt_look_prepare(struct dt_cards *cards, const struct dt_look *look)
{
	size_t n;
	const struct dt_slice *slices = slices_of(cards, look, &n);
	return dt_collect_prepare(&cards->lock, cards->session, slices, n, &cards->epoch);
}
