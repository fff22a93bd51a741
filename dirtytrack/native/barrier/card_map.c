// From the runs of a look to bits or bytes.
#include "card_map.h"

#include <string.h>

#include "../core/collect.h"
#include "look.h"

static size_t bytes_of(const struct dt_cards *cards, uint64_t count)
{
	return cards->bytes ? count : (count + 7) / 8;
}

size_t dt_cards_map_bytes(struct dt_cards *cards)
{
	if (dt_cards_enter(cards))
		return 0;
	size_t bytes = bytes_of(cards, dt_segments_all_cards(&cards->segments));
	dt_leave(&cards->lock, 0);
	return bytes;
}

// A map, and which card of it a segment's first one is; that of a part may lie before the map's beginning.
struct map {
	uint8_t *cards;
	uint64_t first; // modulo 2^64
	bool bytes;
	uint32_t card_shift;
};

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
static uint64_t set(const struct map *map, uint64_t start, uint64_t stop)
{
	if (map->bytes)
		memset(map->cards + (map->first + start), 1, stop - start);
	else
		set_bits(map->cards, map->first + start, map->first + stop);
	return stop - start;
}

// The cards on the pages of these runs. Several may be on one page, and several pages on one card.
static uint64_t set_pages(const struct map *map, const struct dt_extent *extent, const struct dt_run *runs, uint64_t n)
{
	uint64_t next = 0, total = 0; // no card from next on is set
	for (uint64_t i = 0; i < n; i++) {
		struct dt_run bytes = dt_extent_bytes(extent, runs[i]);
		if (bytes.start >= bytes.stop)
			continue;
		uint64_t start = bytes.start >> map->card_shift, stop = ((bytes.stop - 1) >> map->card_shift) + 1;
		start = start > next ? start : next;
		if (start >= stop)
			continue;
		total += set(map, start, stop);
		next = stop;
	}
	return total;
}

static struct map map_of(const struct dt_cards *cards, const struct dt_look *look, void *out,
			 const struct dt_heap_segment *segment)
{
	uint32_t shift = cards->segments.card_shift;
	uint64_t first = (dt_segment_start(segment) >> shift) - (look->bytes.start >> shift);
	return (struct map){out, look->is_all ? segment->first : first, cards->bytes, shift};
}

static int64_t fill(const struct dt_cards *cards, const struct dt_look *look, void *out, bool everything)
{
	const struct dt_entry *entry = cards->epoch.buffers.entries;
	uint64_t total = 0;
	for_each_looked_at(segment, cards, look)
	{
		const struct map map = map_of(cards, look, out, segment);
		if (segment->lost || everything) {
			struct dt_run part = dt_look_part(look, segment);
			total += set(&map, part.start >> map.card_shift, part.stop >> map.card_shift);
		} else {
			const struct dt_run *runs = cards->epoch.buffers.runs + entry->first_run;
			total += set_pages(&map, &segment->extent, runs, entry->run_count);
			entry++;
		}
	}
	return (int64_t)total;
}

// The cards of a take that its caller has not heard of.
static void give_back_unheard(struct dt_cards *cards, uint64_t heard)
{
	if (!cards->taken || cards->taken == heard)
		return;
	dt_epoch_abort(&cards->epoch);
	cards->taken = 0;
}

static int64_t look_at(struct dt_cards *cards, const struct dt_look *look, int verb, void *map, size_t bytes)
{
	int error = dt_look_do(cards, look, verb);
	if (bytes)
		memset(map, 0, bytes);
	int64_t total = fill(cards, look, map, error != 0);
	cards->epoch.settled = 1;
	return error ? error : total;
}

// An error is a negative number, too.
static int64_t leave(struct dt_cards *cards, int64_t result)
{
	dt_leave(&cards->lock, 0);
	return result;
}

int64_t dt_cards_look(struct dt_cards *cards, int verb, uint64_t number, uint64_t heard, void *map, size_t bytes)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	if (bytes != bytes_of(cards, dt_segments_all_cards(&cards->segments)))
		return leave(cards, -DT_ESIZE);
	struct dt_look all = dt_look_at_all(cards);
	give_back_unheard(cards, heard);
	int64_t found = look_at(cards, &all, verb, map, bytes);
	cards->taken = number ? number : cards->taken;
	return leave(cards, found);
}

int64_t dt_cards_look_at(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, void *map, size_t bytes)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	error = dt_cards_check_part(cards, start, stop);
	if (!error && bytes != bytes_of(cards, (stop - start) >> cards->segments.card_shift))
		error = -DT_ESIZE;
	if (error)
		return leave(cards, error);
	struct dt_look part = dt_look_at(cards, start, stop);
	return leave(cards, look_at(cards, &part, verb, map, bytes));
}

int dt_cards_prepare(struct dt_cards *cards)
{
	int error = dt_cards_enter(cards);
	if (error)
		return error;
	struct dt_look all = dt_look_at_all(cards);
	return dt_leave(&cards->lock, dt_look_prepare(cards, &all));
}
