// A look whose answer is a list. What there is no room for goes back to the cursor.
#include "listing.h"

#include "../core/collect.h"
#include "look.h"

// Runs of cards on their way into a list.
struct listing {
	struct dt_range *runs;
	size_t count;
	size_t room;
	uint64_t pages; // of the epoch that the list has
	bool is_full;
};

// Cards [start, stop) of a segment, behind those before them, and how many pages of the epoch they stand for.
static void append(struct listing *to, const struct dt_heap_segments *segments, const struct dt_heap_segment *segment,
		   struct dt_run cards, uint64_t pages)
{
	uint64_t first = segment->first + cards.start, address = dt_segment_start(segment);
	struct dt_range *last = to->count ? &to->runs[to->count - 1] : NULL;
	bool is_same_segment = last && (uintptr_t)last->start >= address;
	bool touches = is_same_segment && first <= last->first_card + last->cards;
	if (!touches && to->count == to->room) {
		to->is_full = true;
		return;
	}
	if (!touches) {
		last = &to->runs[to->count++];
		*last = (struct dt_range){
			.start = (void *)(uintptr_t)(address + (cards.start << segments->card_shift)),
			.first_card = first,
		};
	}
	uint64_t stop = segment->first + cards.stop, end = last->first_card + last->cards;
	last->cards = (stop > end ? stop : end) - last->first_card;
	last->bytes = last->cards << segments->card_shift;
	to->pages += pages;
}

static struct dt_run cards_of(const struct dt_cards *cards, struct dt_run bytes)
{
	uint32_t shift = cards->segments.card_shift;
	return (struct dt_run){bytes.start >> shift, ((bytes.stop - 1) >> shift) + 1};
}

static void list(const struct dt_cards *cards, const struct dt_look *look, struct listing *to)
{
	const struct dt_entry *entry = cards->epoch.buffers.entries;
	for_each_looked_at(segment, cards, look)
	{
		if (to->is_full)
			return;
		if (segment->lost) {
			struct dt_run all = {0, dt_segment_cards(&cards->segments, segment)};
			append(to, &cards->segments, segment, all, 0);
			continue;
		}
		const struct dt_run *run = cards->epoch.buffers.runs + entry->first_run, *end = run + entry->run_count;
		for (; run < end && !to->is_full; run++) {
			struct dt_run bytes = dt_extent_bytes(&segment->extent, *run);
			append(to, &cards->segments, segment, cards_of(cards, bytes), run->stop - run->start);
		}
		entry++;
	}
}

// Whole pages and cards around some addresses, of whatever size the pages are.
static struct dt_run widen(const struct dt_cards *cards, uint64_t start, uint64_t stop)
{
	uint64_t unit = 1ULL << cards->segments.card_shift;
	const struct dt_heap_segment *segment = dt_segments_first_in(&cards->segments, start, stop);
	if (segment && segment->extent.page_size > unit)
		unit = segment->extent.page_size;
	uint64_t end = stop > UINT64_MAX - unit ? UINT64_MAX : (stop + unit - 1) & ~(unit - 1);
	return (struct dt_run){start & ~(unit - 1), end};
}

// Of an epoch that was collected the list has so many pages; the others are the cursor's again.
static void settle(struct dt_cards *cards, uint64_t pages)
{
	dt_epoch_trim(&cards->epoch, pages);
	cards->epoch.settled = 1;
}

long dt_list_runs(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, struct dt_range *runs, size_t room)
{
	struct listing listing = {.runs = runs, .room = room};
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	struct dt_run wide = widen(cards, start, stop);
	struct dt_look look = dt_look_at(cards, wide.start, wide.stop);
	error = dt_look_do(cards, &look, verb);
	if (!error) {
		list(cards, &look, &listing);
		settle(cards, listing.pages);
	}
	dt_leave(&cards->lock, 0);
	return error ? error : (long)listing.count;
}

// 0 if all of a look's segments have pages of one size, and none is lost.
static int check(const struct dt_cards *cards, const struct dt_look *look, uint64_t *page_size)
{
	*page_size = 0;
	for_each_looked_at(segment, cards, look)
	{
		if (segment->lost)
			return -DT_ELOST;
		if (*page_size && *page_size != segment->extent.page_size)
			return -DT_EMIXED;
		*page_size = segment->extent.page_size;
	}
	return 0;
}

// A page that segments share is listed once.
static size_t list_pages(const struct dt_cards *cards, const struct dt_look *look, void **addresses, size_t room,
			 uint64_t *pages_ret)
{
	const struct dt_entry *entry = cards->epoch.buffers.entries;
	uint64_t next = 0;
	size_t n = 0;
	*pages_ret = 0;
	for_each_looked_at(segment, cards, look)
	{
		const struct dt_extent *extent = &segment->extent;
		const struct dt_run *run = cards->epoch.buffers.runs + entry->first_run, *end = run + entry->run_count;
		for (; run < end; run++) {
			for (uint64_t page = run->start; page < run->stop; page++) {
				uint64_t address = extent->address - extent->offset + page * extent->page_size;
				if (address >= next && n == room)
					return n;
				++*pages_ret;
				if (address >= next)
					addresses[n++] = (void *)(uintptr_t)address;
				next = address + extent->page_size;
			}
		}
		entry++;
	}
	return n;
}

static long look_at_pages(struct dt_cards *cards, int verb, const struct dt_look *look, void **addresses, size_t room,
			  size_t *page_size)
{
	uint64_t size, pages;
	int error = dt_look_do(cards, look, verb);
	if (!error && (error = check(cards, look, &size))) { // a look finds what is lost, and what is no longer
		dt_epoch_abort(&cards->epoch);
		return error;
	}
	if (error)
		return error;
	*page_size = size;
	if (!addresses) {
		cards->epoch.settled = 1;
		return 0;
	}
	size_t n = list_pages(cards, look, addresses, room, &pages);
	settle(cards, pages);
	return (long)n;
}

long dt_list_pages(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, void **addresses, size_t room,
		   size_t *page_size)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	struct dt_look look = dt_look_at(cards, start, stop);
	long found = dt_segments_cover(&cards->segments, start, stop)
			     ? look_at_pages(cards, verb, &look, addresses, room, page_size)
			     : -DT_EUNTRACKED;
	dt_leave(&cards->lock, 0);
	return found;
}
