// Card tables: segments side by side in one map, and a cursor that collects exactly those that are not lost.
#include "cards.h"

#include <errno.h>
#include <string.h>

#include "../base/array.h"
#include "../base/extent.h"
#include "../base/memory.h"
#include "../core/collect.h"
#include "../core/tracking.h"
#include "marks.h"

struct segment {
	struct dt_extent extent;
	uint64_t first;           // its first card
	bool lost;                // its memory is no longer what was added
	struct dt_marked *marked; // what was declared written since the last look
};

struct dt_cards {
	struct dt_lock lock; // of all below, but for dt_mark
	struct dt_marks marks;
	struct dt_session *session;
	uint64_t cursor;
	uint32_t card_shift;
	bool bytes;                  // a map has a byte for each card, not a bit
	bool outdated;               // the slices are not those of the segments that are not lost
	struct segment **segments;   // segment_count of them, by card; owned, as they are
	struct segment **by_address; // the same ones
	size_t segment_count;
	size_t segment_room;
	size_t address_room;
	size_t first_gap;        // no segment before this one leaves a gap in front of it
	struct dt_slice *slices; // room for as many as there are segments; owned
	size_t slice_count;
	size_t slice_room;
	uint64_t count;        // cards in the map
	struct dt_epoch epoch; // used for one look after the other
	uint64_t taken;        // the number of the last take whose caller is to hear of its end; 0: there is none
};

#define for_each_segment(each, cards)                        \
	for (struct segment **at = (cards)->segments, *each; \
	     at < (cards)->segments + (cards)->segment_count && (each = *at, true); at++)

static uint64_t start_of(const struct segment *segment)
{
	return segment->extent.address;
}

static uint64_t stop_of(const struct segment *segment)
{
	return segment->extent.address + segment->extent.nbytes;
}

int dt_cards_open(struct dt_session *session, uint64_t cursor, uint32_t card_shift, unsigned flags,
		  struct dt_cards **cards_ret)
{
	struct dt_cards *cards = dt_alloc(sizeof *cards);
	if (!cards)
		return -ENOMEM;
	*cards = (struct dt_cards){
		.session = session,
		.cursor = cursor,
		.card_shift = card_shift,
		.bytes = flags & DT_BYTES,
		.epoch.settled = 1,
	};
	int error = dt_lock_init(&cards->lock);
	if (error) {
		dt_free(cards, sizeof *cards);
		return error;
	}
	cards->lock.is_quiet = session->lock.is_quiet;
	dt_session_hold(session);
	*cards_ret = cards;
	return 0;
}

void dt_cards_close(struct dt_cards *cards)
{
	if (!cards)
		return;
	dt_epoch_end(&cards->epoch);
	dt_session_drop(cards->session);
	dt_marks_free(&cards->marks);
	for_each_segment(segment, cards) dt_free(segment, sizeof *segment);
	dt_free(cards->segments, cards->segment_room * sizeof *cards->segments);
	dt_free(cards->by_address, cards->address_room * sizeof *cards->by_address);
	dt_free(cards->slices, cards->slice_room * sizeof *cards->slices);
	dt_free(cards, sizeof *cards);
}

void dt_cards_release(struct dt_cards **cards)
{
	dt_cards_close(*cards);
}

static uint64_t cards_in(const struct dt_cards *cards, const struct segment *segment)
{
	return segment->extent.nbytes >> cards->card_shift;
}

// The first card from which on a segment may lie behind the one at an index: each begins with a byte of the map.
static uint64_t end_before(const struct dt_cards *cards, size_t at)
{
	const struct segment *before = at ? cards->segments[at - 1] : NULL;
	return before ? (before->first + cards_in(cards, before) + 7) & ~7ULL : 0;
}

// Where a new segment goes: into the first gap that it fits.
static size_t find_place(struct dt_cards *cards, uint64_t count)
{
	size_t at = cards->first_gap;
	while (at < cards->segment_count && cards->segments[at]->first == end_before(cards, at))
		at++;
	cards->first_gap = at;
	while (at < cards->segment_count && cards->segments[at]->first < end_before(cards, at) + count)
		at++;
	return at;
}

// The index by address of the first segment that ends behind an address.
static size_t first_ending_behind(const struct dt_cards *cards, uint64_t address)
{
	size_t low = 0, high = cards->segment_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (stop_of(cards->by_address[middle]) > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

// The first segment that has some of [start, stop), or NULL.
static struct segment *first_in(const struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	size_t at = first_ending_behind(cards, start);
	bool is_in = at < cards->segment_count && start_of(cards->by_address[at]) < stop;
	return is_in ? cards->by_address[at] : NULL;
}

// The segment that begins at an address, or NULL.
static struct segment *find(const struct dt_cards *cards, uint64_t start)
{
	struct segment *segment = first_in(cards, start, UINT64_MAX);
	return segment && start_of(segment) == start ? segment : NULL;
}

static void changed(struct dt_cards *cards)
{
	const struct segment *last = cards->segment_count ? cards->segments[cards->segment_count - 1] : NULL;
	cards->count = last ? last->first + cards_in(cards, last) : 0;
	cards->outdated = true;
}

static void insert(struct segment **list, size_t count, size_t at, struct segment *segment)
{
	memmove(list + at + 1, list + at, (count - at) * sizeof *list);
	list[at] = segment;
}

static void take_out(struct segment **list, size_t count, size_t at)
{
	memmove(list + at, list + at + 1, (count - at - 1) * sizeof *list);
}

static int make_room(struct dt_cards *cards)
{
	size_t count = cards->segment_count + 1;
	int error = dt_grow(&cards->segments, &cards->segment_room, count, sizeof *cards->segments);
	if (!error)
		error = dt_grow(&cards->by_address, &cards->address_room, count, sizeof *cards->by_address);
	return error ? error : dt_grow(&cards->slices, &cards->slice_room, count, sizeof *cards->slices);
}

static int add(struct dt_cards *cards, const struct segment *like, uint64_t *first_ret)
{
	if (first_in(cards, start_of(like), stop_of(like)))
		return -DT_EOVERLAP;
	int error = make_room(cards);
	if (error)
		return error;
	struct segment *segment = dt_alloc(sizeof *segment);
	if (!segment)
		return -ENOMEM;
	*segment = *like;
	segment->marked = dt_marks_add(&cards->marks, &segment->extent);
	if (!segment->marked) {
		dt_free(segment, sizeof *segment);
		return -ENOMEM;
	}
	size_t place = find_place(cards, cards_in(cards, segment));
	*first_ret = segment->first = end_before(cards, place);
	insert(cards->segments, cards->segment_count, place, segment);
	insert(cards->by_address, cards->segment_count, first_ending_behind(cards, start_of(segment)), segment);
	cards->segment_count++;
	changed(cards);
	return 0;
}

int dt_cards_add(struct dt_cards *cards, uint64_t region, uint64_t start, uint64_t stop, uint64_t *first_ret)
{
	struct segment segment = {.extent = {.region = region, .address = start, .nbytes = stop - start}};
	uint32_t page_shift;
	if ((start | stop) & ((1ULL << cards->card_shift) - 1))
		return -DT_EALIGN;
	int error = dt_enter(&cards->lock);
	if (error)
		return error;
	error = dt_session_locate(cards->session, region, start, &segment.extent.offset, &page_shift);
	if (!error) {
		segment.extent.page_size = 1ULL << page_shift;
		error = add(cards, &segment, first_ret);
	}
	return dt_leave(&cards->lock, error);
}

// The index by card.
static size_t place_of(const struct dt_cards *cards, const struct segment *segment)
{
	size_t low = 0, high = cards->segment_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (cards->segments[middle]->first < segment->first)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void remove_segment(struct dt_cards *cards, struct segment *segment)
{
	size_t place = place_of(cards, segment);
	dt_marks_remove(&cards->marks, segment->marked);
	take_out(cards->segments, cards->segment_count, place);
	take_out(cards->by_address, cards->segment_count, first_ending_behind(cards, start_of(segment)));
	cards->segment_count--;
	cards->first_gap = place < cards->first_gap ? place : cards->first_gap;
	dt_free(segment, sizeof *segment);
	changed(cards);
}

int dt_cards_remove(struct dt_cards *cards, uint64_t start, uint64_t *region_ret)
{
	int error = dt_enter(&cards->lock);
	if (error)
		return error;
	struct segment *segment = find(cards, start);
	if (!segment)
		return dt_leave(&cards->lock, -DT_EUNTRACKED);
	*region_ret = segment->extent.region;
	remove_segment(cards, segment);
	return dt_leave(&cards->lock, 0);
}

uint64_t dt_cards_count(struct dt_cards *cards)
{
	if (dt_enter(&cards->lock))
		return 0;
	uint64_t count = cards->count;
	dt_leave(&cards->lock, 0);
	return count;
}

static size_t map_bytes(const struct dt_cards *cards)
{
	return cards->bytes ? cards->count : (cards->count + 7) / 8;
}

size_t dt_cards_map_bytes(struct dt_cards *cards)
{
	if (dt_enter(&cards->lock))
		return 0;
	size_t bytes = map_bytes(cards);
	dt_leave(&cards->lock, 0);
	return bytes;
}

static void set_bits(uint8_t *map, uint64_t start, uint64_t stop)
{
	uint8_t head = (uint8_t)(0xffU << (start & 7)), tail = (uint8_t)~(0xffU << (stop & 7));
	uint64_t from = start / 8, to = stop / 8;
	if (from == to) {
		map[from] |= head & tail;
		return;
	}
	map[from] |= head;
	memset(map + from + 1, 0xff, to - from - 1);
	if (tail)
		map[to] |= tail;
}

// Sets the cards [start, stop), counted from the segment's first one; their number.
static uint64_t set(const struct dt_cards *cards, uint8_t *map, const struct segment *segment, uint64_t start,
		    uint64_t stop)
{
	if (cards->bytes)
		memset(map + segment->first + start, 1, stop - start);
	else
		set_bits(map, segment->first + start, segment->first + stop);
	return stop - start;
}

// The cards on the pages of these runs. Several may be on one page, and several pages on one card.
static uint64_t set_pages(const struct dt_cards *cards, uint8_t *map, const struct segment *segment,
			  const struct dt_run *runs, uint64_t n)
{
	uint64_t next = 0, total = 0; // no card from next on is set
	for (uint64_t i = 0; i < n; i++) {
		struct dt_run bytes = dt_extent_bytes(&segment->extent, runs[i]);
		if (bytes.start >= bytes.stop)
			continue;
		uint64_t start = bytes.start >> cards->card_shift, stop = ((bytes.stop - 1) >> cards->card_shift) + 1;
		start = start > next ? start : next;
		if (start >= stop)
			continue;
		total += set(cards, map, segment, start, stop);
		next = stop;
	}
	return total;
}

// The slices of the segments that are not known to be lost.
static void update_slices(struct dt_cards *cards)
{
	cards->slice_count = 0;
	for_each_segment(segment, cards)
	{
		if (segment->lost)
			continue;
		cards->slices[cards->slice_count++] = (struct dt_slice){
			.region = segment->extent.region,
			.start = segment->extent.offset / segment->extent.page_size,
			.stop = dt_extent_pages(&segment->extent),
		};
	}
	cards->outdated = false;
}

// Notes which segments are lost by now; a region that somebody else has removed is. Returns whether there is a new one.
static bool find_lost(struct dt_cards *cards)
{
	bool found = false;
	for_each_segment(segment, cards)
	{
		int lost = segment->lost ? 0 : dt_session_is_lost(cards->session, segment->extent.region);
		if (lost == 1 || lost == -DT_ECLOSED)
			segment->lost = found = true;
	}
	cards->outdated |= found;
	return found;
}

struct marking {
	struct dt_session *session;
	uint64_t region;
};

static void mark_pages(void *context, struct dt_run pages)
{
	const struct marking *marking = context;
	// It fails for a region that is lost or gone: the collect finds that, and all cards of its segment are set.
	dt_session_mark(marking->session, marking->region, pages.start, pages.stop);
}

// Gives the session what was marked since the last look.
static void hand_over_marks(struct dt_cards *cards)
{
	if (!dt_marks_any(&cards->marks))
		return;
	for_each_segment(segment, cards)
	{
		struct marking marking = {cards->session, segment->extent.region};
		dt_marks_take(segment->marked, mark_pages, &marking);
	}
}

static int collect(struct dt_cards *cards, int verb)
{
	hand_over_marks(cards);
	for (;;) {
		if (cards->outdated)
			update_slices(cards);
		int error = dt_collect_within(cards->session, cards->cursor, verb, cards->slices, cards->slice_count,
					      &cards->epoch);
		bool again = (error == -DT_ELOST || error == -DT_ECLOSED) && !dt_session_usable(cards->session);
		if (!again || !find_lost(cards))
			return error;
	}
}

static int64_t fill(const struct dt_cards *cards, uint8_t *map, bool everything)
{
	const struct dt_entry *entry = cards->epoch.buffers.entries;
	int64_t total = 0;
	for_each_segment(segment, cards)
	{
		if (segment->lost || everything) {
			total += (int64_t)set(cards, map, segment, 0, cards_in(cards, segment));
		} else {
			const struct dt_run *runs = cards->epoch.buffers.runs + entry->first_run;
			total += (int64_t)set_pages(cards, map, segment, runs, entry->run_count);
			entry++;
		}
	}
	return total;
}

// The cards of a take that its caller has not heard of.
static void give_back_unheard(struct dt_cards *cards, uint64_t heard)
{
	if (!cards->taken || cards->taken == heard)
		return;
	dt_epoch_abort(&cards->epoch);
	cards->taken = 0;
}

int64_t dt_cards_look(struct dt_cards *cards, int verb, uint64_t number, uint64_t heard, void *map, size_t bytes)
{
	int error = dt_enter(&cards->lock);
	if (error)
		return error;
	if (bytes != map_bytes(cards))
		return dt_leave(&cards->lock, -DT_ESIZE);
	give_back_unheard(cards, heard);
	error = collect(cards, verb);
	cards->taken = number ? number : cards->taken;
	memset(map, 0, bytes);
	int64_t total = fill(cards, map, error != 0);
	cards->epoch.settled = 1;
	dt_leave(&cards->lock, 0);
	return error ? error : total;
}

int dt_cards_mark(struct dt_cards *cards, uint64_t start, uint64_t bytes)
{
	int error = dt_lock_usable(&cards->lock);
	return error ? error : dt_mark(&cards->marks, start, start + bytes);
}

int dt_cards_first_in(struct dt_cards *cards, uint64_t start, uint64_t stop, uint64_t *start_ret)
{
	int error = dt_enter(&cards->lock);
	if (error)
		return error;
	const struct segment *segment = first_in(cards, start, stop);
	*start_ret = segment ? start_of(segment) : 0;
	return dt_leave(&cards->lock, segment != NULL);
}

int dt_cards_is_lost(struct dt_cards *cards, uint64_t start)
{
	int error = dt_enter(&cards->lock);
	if (error)
		return error;
	const struct segment *segment = find(cards, start);
	return dt_leave(&cards->lock, segment && segment->lost);
}

long dt_cards_unstopped(struct dt_cards *cards, int32_t *threads, size_t room)
{
	int error = dt_enter(&cards->lock);
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

long dt_cards_lost(struct dt_cards *cards, struct dt_range *ranges, size_t room)
{
	int error = dt_enter(&cards->lock);
	if (error)
		return error;
	size_t n = 0;
	for_each_segment(segment, cards)
	{
		if (!segment->lost)
			continue;
		if (n < room)
			ranges[n] = (struct dt_range){
				.start = (void *)(uintptr_t)start_of(segment),
				.bytes = segment->extent.nbytes,
				.first_card = segment->first,
				.cards = cards_in(cards, segment),
			};
		n++;
	}
	dt_leave(&cards->lock, 0);
	return (long)n;
}
