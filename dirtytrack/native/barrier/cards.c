// Card tables.
#include <errno.h>
#include <string.h>

#include "../core/internal.h"
#include "cards.h"

struct segment {
	uint64_t region;
	uint64_t start; // addresses
	uint64_t stop;
	uint64_t first;  // its first card
	uint64_t offset; // of start from the region's first page
	uint32_t page_shift;
	bool lost;
};

struct dt_cards {
	pthread_mutex_t lock;
	struct dt_session *session;
	uint64_t cursor;
	uint32_t card_shift;
	bool bytes;
	bool outdated;            // the slices are not those of the segments that are not lost
	struct segment *segments; // by card
	size_t segment_count, segment_room;
	struct dt_slice *slices;
	size_t slice_count, slice_room;
	uint64_t count;
	struct dt_epoch epoch; // used for one look after the other
};

// The fork comes before the lock, which a thread of the parent may hold.
static int enter(struct dt_cards *cards)
{
	if (!dt_is_address_space(cards->session->address_space))
		return -DT_EFORKED;
	pthread_mutex_lock(&cards->lock);
	return 0;
}

static int leave(struct dt_cards *cards, int result)
{
	pthread_mutex_unlock(&cards->lock);
	return result;
}

int dt_cards_open(struct dt_session *session, uint64_t cursor, uint32_t card_shift, unsigned flags,
		  struct dt_cards **cards_ret)
{
	struct dt_cards *cards = dt_alloc(sizeof *cards);
	if (!cards)
		return -ENOMEM;
	*cards = (struct dt_cards){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.session = session,
		.cursor = cursor,
		.card_shift = card_shift,
		.bytes = flags & DT_BYTES,
		.epoch.settled = 1,
	};
	dt_session_hold(session);
	*cards_ret = cards;
	return 0;
}

void dt_cards_close(void *pointer)
{
	struct dt_cards *cards = pointer;
	if (!cards)
		return;
	dt_epoch_end(&cards->epoch);
	dt_session_drop(cards->session);
	dt_free(cards->segments, cards->segment_room * sizeof *cards->segments);
	dt_free(cards->slices, cards->slice_room * sizeof *cards->slices);
	dt_free(cards, sizeof *cards);
}

static uint64_t cards_in(const struct dt_cards *cards, const struct segment *segment)
{
	return (segment->stop - segment->start) >> cards->card_shift;
}

// Where a new segment goes: into the first gap that it fits; each begins with a byte of the map.
static size_t find_place(const struct dt_cards *cards, uint64_t count, uint64_t *first_ret)
{
	uint64_t first = 0;
	size_t at = 0;
	while (at < cards->segment_count && cards->segments[at].first < first + count) {
		first = (cards->segments[at].first + cards_in(cards, &cards->segments[at]) + 7) & ~7ULL;
		at++;
	}
	*first_ret = first;
	return at;
}

static void changed(struct dt_cards *cards)
{
	const struct segment *last = cards->segments + cards->segment_count - 1;
	cards->count = cards->segment_count ? last->first + cards_in(cards, last) : 0;
	cards->outdated = true;
}

static int add(struct dt_cards *cards, struct segment *segment)
{
	for (size_t i = 0; i < cards->segment_count; i++)
		if (segment->start < cards->segments[i].stop && cards->segments[i].start < segment->stop)
			return -DT_EOVERLAP;
	int error = dt_grow(&cards->segments, &cards->segment_room, cards->segment_count + 1, sizeof *segment);
	if (!error)
		error = dt_grow(&cards->slices, &cards->slice_room, cards->segment_count + 1, sizeof *cards->slices);
	if (error)
		return error;
	size_t at = find_place(cards, cards_in(cards, segment), &segment->first);
	memmove(cards->segments + at + 1, cards->segments + at, (cards->segment_count - at) * sizeof *cards->segments);
	cards->segments[at] = *segment;
	cards->segment_count++;
	changed(cards);
	return 0;
}

int dt_cards_add(struct dt_cards *cards, uint64_t region, uint64_t start, uint64_t stop, uint64_t *first_ret)
{
	struct segment segment = {.region = region, .start = start, .stop = stop};
	if ((start | stop) & ((1ULL << cards->card_shift) - 1))
		return -DT_EALIGN;
	int error = enter(cards);
	if (error)
		return error;
	error = dt_session_locate(cards->session, region, start, &segment.offset, &segment.page_shift);
	if (!error)
		error = add(cards, &segment);
	*first_ret = segment.first;
	return leave(cards, error);
}

static struct segment *find(const struct dt_cards *cards, uint64_t start)
{
	for (size_t i = 0; i < cards->segment_count; i++)
		if (cards->segments[i].start == start)
			return &cards->segments[i];
	return NULL;
}

int dt_cards_remove(struct dt_cards *cards, uint64_t start, uint64_t *region_ret)
{
	int error = enter(cards);
	if (error)
		return error;
	struct segment *segment = find(cards, start);
	if (!segment)
		return leave(cards, -DT_EUNTRACKED);
	*region_ret = segment->region;
	cards->segment_count--;
	memmove(segment, segment + 1, (cards->segments + cards->segment_count - segment) * sizeof *segment);
	changed(cards);
	return leave(cards, 0);
}

uint64_t dt_cards_count(struct dt_cards *cards)
{
	if (enter(cards))
		return 0;
	uint64_t count = cards->count;
	leave(cards, 0);
	return count;
}

static size_t map_bytes(const struct dt_cards *cards)
{
	return cards->bytes ? cards->count : (cards->count + 7) / 8;
}

size_t dt_cards_map_bytes(struct dt_cards *cards)
{
	if (enter(cards))
		return 0;
	size_t bytes = map_bytes(cards);
	leave(cards, 0);
	return bytes;
}

static void set_bits(uint8_t *map, uint64_t first, uint64_t last)
{
	uint8_t head = (uint8_t)(0xff << (first & 7)), tail = (uint8_t)~(0xff << (last & 7));
	uint64_t from = first / 8, to = last / 8;
	if (from == to) {
		map[from] |= head & tail;
		return;
	}
	map[from] |= head;
	memset(map + from + 1, 0xff, to - from - 1);
	if (tail)
		map[to] |= tail;
}

static void set(const struct dt_cards *cards, uint8_t *map, uint64_t first, uint64_t last)
{
	if (cards->bytes)
		memset(map + first, 1, last - first);
	else
		set_bits(map, first, last);
}

static uint64_t set_all(const struct dt_cards *cards, uint8_t *map, const struct segment *segment)
{
	uint64_t count = cards_in(cards, segment);
	set(cards, map, segment->first, segment->first + count);
	return count;
}

// The cards on the pages of these runs. Several may be on one page, and several pages on one card.
static uint64_t set_pages(const struct dt_cards *cards, uint8_t *map, const struct segment *segment,
			  const struct dt_run *runs, uint64_t n)
{
	uint64_t bytes = segment->stop - segment->start, next = 0, total = 0;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t start = runs[i].start << segment->page_shift, stop = runs[i].stop << segment->page_shift;
		if (stop <= segment->offset)
			continue;
		start = start > segment->offset ? start - segment->offset : 0;
		stop = stop - segment->offset < bytes ? stop - segment->offset : bytes;
		if (start >= stop)
			continue;
		uint64_t first = start >> cards->card_shift, last = ((stop - 1) >> cards->card_shift) + 1;
		first = first > next ? first : next;
		if (first >= last)
			continue;
		set(cards, map, segment->first + first, segment->first + last);
		total += last - first;
		next = last;
	}
	return total;
}

// The slices of the segments that are not known to be lost.
static void update_slices(struct dt_cards *cards)
{
	cards->slice_count = 0;
	for (const struct segment *segment = cards->segments; segment < cards->segments + cards->segment_count;
	     segment++) {
		if (segment->lost)
			continue;
		uint64_t end = segment->offset + (segment->stop - segment->start);
		cards->slices[cards->slice_count++] = (struct dt_slice){
			.region = segment->region,
			.first = segment->offset >> segment->page_shift,
			.last = (end + (1ULL << segment->page_shift) - 1) >> segment->page_shift,
		};
	}
	cards->outdated = false;
}

// Notes which segments are lost by now; a region that somebody else has removed is. Returns whether there is a new one.
static bool find_lost(struct dt_cards *cards)
{
	bool found = false;
	for (struct segment *segment = cards->segments; segment < cards->segments + cards->segment_count; segment++) {
		int lost = segment->lost ? 0 : dt_session_is_lost(cards->session, segment->region);
		if (lost == 1 || lost == -DT_ECLOSED)
			segment->lost = found = true;
	}
	cards->outdated |= found;
	return found;
}

static int collect(struct dt_cards *cards, int verb)
{
	for (;;) {
		if (cards->outdated)
			update_slices(cards);
		int error = dt_collect(cards->session, cards->cursor, verb, cards->slices, cards->slice_count,
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
	for (const struct segment *segment = cards->segments; segment < cards->segments + cards->segment_count;
	     segment++) {
		if (segment->lost || everything) {
			total += (int64_t)set_all(cards, map, segment);
		} else {
			const struct dt_run *runs = cards->epoch.buffers.runs + entry->first_run;
			total += (int64_t)set_pages(cards, map, segment, runs, entry->run_count);
			entry++;
		}
	}
	return total;
}

int64_t dt_cards_look(struct dt_cards *cards, int verb, void *map, size_t bytes)
{
	int error = enter(cards);
	if (error)
		return error;
	if (bytes != map_bytes(cards))
		return leave(cards, -DT_ESIZE);
	error = collect(cards, verb);
	memset(map, 0, bytes);
	int64_t total = fill(cards, map, error != 0);
	cards->epoch.settled = 1;
	leave(cards, 0);
	return error ? error : total;
}

// The segment that has an address; NULL if none has.
static const struct segment *at_address(const struct dt_cards *cards, uint64_t address)
{
	for (size_t i = 0; i < cards->segment_count; i++)
		if (cards->segments[i].start <= address && address < cards->segments[i].stop)
			return &cards->segments[i];
	return NULL;
}

static int mark(struct dt_cards *cards, const struct segment *segment, uint64_t start, uint64_t stop)
{
	uint64_t first = start - segment->start + segment->offset, last = stop - segment->start + segment->offset;
	int error = dt_session_mark(cards->session, segment->region, first >> segment->page_shift,
				    (last + (1ULL << segment->page_shift) - 1) >> segment->page_shift);
	return error == -DT_ELOST ? 0 : error; // then all its cards are set
}

int dt_cards_mark(struct dt_cards *cards, uint64_t start, uint64_t bytes)
{
	uint64_t stop = start + bytes;
	int error = enter(cards);
	if (error)
		return error;
	const struct segment *segment;
	for (uint64_t at = start; at < stop; at = segment->stop)
		if (!(segment = at_address(cards, at)))
			return leave(cards, -DT_EUNTRACKED);
	for (uint64_t at = start; at < stop && !error; at = segment->stop) {
		segment = at_address(cards, at);
		error = segment->lost ? 0 : mark(cards, segment, at, stop < segment->stop ? stop : segment->stop);
		if (error == -DT_ECLOSED && !dt_session_usable(cards->session) && find_lost(cards))
			error = 0;
	}
	return leave(cards, stop < start ? -DT_EUNTRACKED : error);
}

int dt_cards_is_lost(struct dt_cards *cards, uint64_t start)
{
	int error = enter(cards);
	if (error)
		return error;
	const struct segment *segment = find(cards, start);
	return leave(cards, segment && segment->lost);
}

long dt_cards_lost(struct dt_cards *cards, struct dt_range *ranges, size_t room)
{
	int error = enter(cards);
	if (error)
		return error;
	size_t n = 0;
	for (const struct segment *segment = cards->segments; segment < cards->segments + cards->segment_count;
	     segment++) {
		if (!segment->lost)
			continue;
		if (n < room)
			ranges[n] = (struct dt_range){
				.start = (void *)segment->start,
				.bytes = segment->stop - segment->start,
				.first_card = segment->first,
				.cards = cards_in(cards, segment),
			};
		n++;
	}
	leave(cards, 0);
	return (long)n;
}
