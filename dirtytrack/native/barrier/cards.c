// Card tables: segments side by side in one map, and a cursor that collects exactly those that are not lost.
#include "cards.h"

#include <errno.h>
#include <string.h>

#include "../base/address_space.h"
#include "../base/array.h"
#include "../base/memory.h"

int dt_cards_open(struct dt_session *session, uint64_t cursor, uint32_t card_shift, unsigned flags,
		  struct dt_cards **cards_ret)
{
	struct dt_cards *cards = dt_alloc(sizeof *cards);
	if (!cards)
		return -ENOMEM;
	*cards = (struct dt_cards){
		.session = session,
		.cursor = cursor,
		.segments.card_shift = card_shift,
		.bytes = flags & DT_BYTES,
		.epoch.settled = 1,
	};
	int error = dt_lock_init(&cards->lock);
	if (error) {
		dt_free(cards, sizeof *cards);
		return error;
	}
	cards->lock.is_quiet = dt_lock_is_quiet(&session->lock);
	dt_session_hold(session);
	*cards_ret = cards;
	return 0;
}

void dt_cards_close(struct dt_cards *cards)
{
	if (!cards || !dt_is_address_space(cards->lock.address_space))
		return;
	dt_epoch_end(&cards->epoch);
	dt_session_drop(cards->session);
	dt_marks_free(&cards->marks);
	dt_segments_free(&cards->segments);
	dt_free(cards->slices, cards->slice_room * sizeof *cards->slices);
	dt_free(cards->part_slices, cards->part_room * sizeof *cards->part_slices);
	dt_free(cards, sizeof *cards);
}

void dt_cards_release(struct dt_cards **cards)
{
	dt_cards_close(*cards);
}

int dt_cards_fit(struct dt_cards *cards)
{
	size_t count = cards->segments.count + 1;
	int error = dt_segments_fit(&cards->segments, 1);
	if (!error)
		error = dt_grow(&cards->slices, &cards->slice_room, count, sizeof *cards->slices);
	return error ? error : dt_grow(&cards->part_slices, &cards->part_room, count, sizeof *cards->part_slices);
}

int dt_cards_enter(struct dt_cards *cards)
{
	int error = dt_enter(&cards->lock);
	if (!error && (error = dt_session_usable(cards->session)))
		dt_leave(&cards->lock, error);
	return error;
}

int dt_cards_check_new(const struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	if ((start | stop) & ((1ULL << cards->segments.card_shift) - 1))
		return -DT_EALIGN;
	return dt_segments_first_in(&cards->segments, start, stop) ? -DT_EOVERLAP : 0;
}

static int insert(struct dt_cards *cards, const struct dt_heap_segment *like, uint64_t *first_ret)
{
	int error = dt_cards_fit(cards);
	if (error)
		return error;
	struct dt_heap_segment *segment = dt_alloc(sizeof *segment);
	if (!segment)
		return -ENOMEM;
	*segment = *like;
	segment->marked = dt_marked_new(&segment->extent);
	if (!segment->marked) {
		dt_free(segment, sizeof *segment);
		return -ENOMEM;
	}
	dt_marks_add(&cards->marks, segment->marked);
	dt_segments_insert(&cards->segments, segment);
	*first_ret = segment->first;
	cards->outdated = true;
	return 0;
}

int dt_cards_insert(struct dt_cards *cards, uint64_t region, uint64_t start, uint64_t stop, uint64_t *first_ret)
{
	struct dt_heap_segment segment = {.extent = {.region = region, .address = start, .nbytes = stop - start}};
	uint32_t page_shift;
	int error = dt_session_locate(cards->session, region, start, &segment.extent.offset, &page_shift);
	if (error)
		return error;
	segment.extent.page_size = 1ULL << page_shift;
	return insert(cards, &segment, first_ret);
}

int dt_cards_add(struct dt_cards *cards, uint64_t region, uint64_t start, uint64_t stop, uint64_t *first_ret)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	error = dt_cards_check_new(cards, start, stop);
	return dt_leave(&cards->lock, error ? error : dt_cards_insert(cards, region, start, stop, first_ret));
}

void dt_cards_take_out(struct dt_cards *cards, struct dt_heap_segment *segment)
{
	dt_marks_remove(&cards->marks, segment->marked);
	dt_segments_take_out(&cards->segments, segment);
	dt_free(segment, sizeof *segment);
	cards->outdated = true;
}

int dt_cards_remove(struct dt_cards *cards, uint64_t start, uint64_t *region_ret)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	struct dt_heap_segment *segment = dt_segments_find(&cards->segments, start);
	if (!segment)
		return dt_leave(&cards->lock, -DT_EUNTRACKED);
	*region_ret = segment->extent.region;
	dt_cards_take_out(cards, segment);
	return dt_leave(&cards->lock, 0);
}

uint64_t dt_cards_count(struct dt_cards *cards)
{
	if (dt_cards_enter(cards))
		return 0;
	uint64_t count = dt_segments_all_cards(&cards->segments);
	dt_leave(&cards->lock, 0);
	return count;
}

int dt_cards_check_part(const struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	const struct dt_heap_segments *segments = &cards->segments;
	if (start >= stop || !dt_segments_cover(segments, start, stop))
		return -DT_EUNTRACKED;
	const struct dt_heap_segment *first = dt_segments_first_in(segments, start, stop);
	const struct dt_heap_segment *last = dt_segments_first_in(segments, stop - 1, stop);
	uint64_t card = (1ULL << segments->card_shift) - 1;
	bool begins = start == dt_segment_start(first) || !(start & (card | (first->extent.page_size - 1)));
	bool ends = stop == dt_segment_stop(last) || !(stop & (card | (last->extent.page_size - 1)));
	return begins && ends ? 0 : -DT_EALIGN;
}

int dt_cards_mark(struct dt_cards *cards, uint64_t start, uint64_t bytes)
{
	int error = dt_session_usable(cards->session);
	return error ? error : dt_mark(&cards->marks, start, start + bytes);
}

int dt_cards_first_in(struct dt_cards *cards, uint64_t start, uint64_t stop, uint64_t *start_ret)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	const struct dt_heap_segment *segment = dt_segments_first_in(&cards->segments, start, stop);
	*start_ret = segment ? dt_segment_start(segment) : 0;
	return dt_leave(&cards->lock, segment != NULL);
}

int dt_cards_is_lost(struct dt_cards *cards, uint64_t start)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	const struct dt_heap_segment *segment = dt_segments_find(&cards->segments, start);
	return dt_leave(&cards->lock, segment && segment->lost);
}

long dt_cards_unstopped(struct dt_cards *cards, int32_t *threads, size_t room)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	const struct dt_threads *unstopped = &cards->epoch.unstopped;
	size_t n = unstopped->count < room ? unstopped->count : room;
	if (n)
		memcpy(threads, unstopped->ids, n * sizeof *threads);
	long all = (long)unstopped->count;
	dt_leave(&cards->lock, 0);
	return all;
}
