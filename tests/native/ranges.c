// Ranges and parts of them: every function of a tracker at random, against a table of pages that were written.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "barrier/card_map.h"
#include "barrier/ranges.h"
#include "driver.h"

enum { ROUNDS = 400, NONE = -1 }; // steps for each kind of tracker

static struct dt_tracker *tracker;
static uint64_t card_size, unit; // bytes; what parts begin and end on
static bool bytes_each;          // a map has a byte for each card
static const struct beside *beside;

// What is known of each page of the arena.
static bool tracked[ARENA], pending[ARENA];
static int64_t number[ARENA * 16]; // of each card, by its place in the arena; NONE: it has none

static struct dt_range listed[ARENA];
static long listed_count;

static uint64_t cards(void)
{
	return ARENA * page_size / card_size;
}

static char *at_unit(uint64_t place)
{
	return arena + place * unit;
}

struct part {
	uint64_t start, stop; // units
};

static struct part draw_part(uint64_t *random)
{
	uint64_t units = ARENA * page_size / unit, start = draw(random, units);
	uint64_t most = units - start < 12 ? units - start : 12;
	return (struct part){start, start + 1 + draw(random, most)};
}

static size_t part_bytes(struct part part)
{
	return (part.stop - part.start) * unit;
}

#define for_each_page(page, part) \
	for (uint64_t page = (part).start * unit / page_size; page < (part).stop * unit / page_size; page++)

static bool all_tracked(struct part part)
{
	bool all = true;
	for_each_page(page, part)
		all &= tracked[page];
	return all;
}

static bool any_tracked(struct part part)
{
	bool any = false;
	for_each_page(page, part)
		any |= tracked[page];
	return any;
}

static void note(struct part part, bool is_tracked, bool is_pending)
{
	for_each_page(page, part) {
		tracked[page] = is_tracked;
		pending[page] = is_pending;
	}
}

// Whether a card touches a page that is due.
static bool is_due(uint64_t card)
{
	uint64_t first = card * card_size / page_size, last = (card * card_size + card_size - 1) / page_size;
	bool due = false;
	for (uint64_t page = first; page <= last; page++)
		due |= tracked[page] && pending[page];
	return due;
}

// The list of ranges is what is tracked, and no card has another number than before.
static void check_numbers(void)
{
	bool seen[ARENA] = {0};
	int64_t before[ARENA * 16];
	listed_count = dt_tracker_ranges(tracker, listed, ARENA);
	check(listed_count >= 0 && listed_count <= ARENA);
	check(dt_tracker_ranges(tracker, NULL, 0) == listed_count);
	memcpy(before, number, sizeof before);
	for (uint64_t card = 0; card < cards(); card++)
		number[card] = NONE;
	for (long i = 0; i < listed_count; i++) {
		uint64_t from = (uint64_t)((char *)listed[i].start - arena);
		check(!i || (char *)listed[i - 1].start + listed[i - 1].bytes <= (char *)listed[i].start);
		check(listed[i].bytes == listed[i].cards * card_size);
		for (uint64_t n = 0; n < listed[i].cards; n++) {
			uint64_t card = from / card_size + n;
			number[card] = (int64_t)(listed[i].first_card + n);
			check(before[card] == NONE || before[card] == number[card]);
			check(listed[i].first_card + n < dt_tracker_cards(tracker));
		}
		for (uint64_t page = from / page_size; page < (from + listed[i].bytes) / page_size; page++)
			seen[page] = true;
	}
	check(memcmp(seen, tracked, sizeof seen) == 0);
	for (long i = 0; i < listed_count; i++)
		for (long j = 0; j < i; j++)
			check(listed[i].first_card >= listed[j].first_card + listed[j].cards ||
			      listed[j].first_card >= listed[i].first_card + listed[i].cards);
}

static bool in_map(const uint8_t *map, uint64_t place)
{
	return bytes_each ? map[place] : map[place / 8] >> place % 8 & 1;
}

// A scan that finds a loss declares all that was scanned with it written, which is what adjoins.
static void note_neighbours(const uint8_t *map)
{
	for (uint64_t card = 0; card < cards(); card++)
		if (number[card] != NONE && in_map(map, (uint64_t)number[card]) && !is_due(card))
			for (uint64_t at = 0; at < card_size; at += page_size)
				pending[(card * card_size + at) / page_size] = true;
}

// A map of everything.
static void look(bool take, bool finds_loss)
{
	size_t size = dt_tracker_map_bytes(tracker);
	uint8_t *map = malloc(size + 1);
	uint64_t dirty, due = 0, set = 0;
	check(map && (take ? dt_tracker_take : dt_tracker_peek)(tracker, map, size, &dirty) == 0);
	if (beside)
		beside->looked();
	if (finds_loss)
		note_neighbours(map);
	for (uint64_t card = 0; card < cards(); card++) {
		if (number[card] == NONE)
			continue;
		check(in_map(map, (uint64_t)number[card]) == is_due(card));
		due += is_due(card);
	}
	for (uint64_t place = 0; place < dt_tracker_cards(tracker); place++)
		set += in_map(map, place);
	check(due == dirty && set == dirty);
	free(map);
	if (take)
		memset(pending, 0, sizeof pending);
}

static void look_at(struct part part, bool take)
{
	uint64_t n = part_bytes(part) / card_size, first = part.start * unit / card_size, dirty, due = 0;
	size_t size = bytes_each ? n : (n + 7) / 8;
	uint8_t *map = malloc(size);
	check(map);
	int error = (take ? dt_tracker_take_range : dt_tracker_peek_range)(tracker, at_unit(part.start),
									   part_bytes(part), map, size, &dirty);
	check(error == (all_tracked(part) ? 0 : -DT_EUNTRACKED));
	for (uint64_t i = 0; !error && i < n; i++) {
		check(in_map(map, i) == is_due(first + i));
		due += is_due(first + i);
	}
	check(error || due == dirty);
	if (!error && take)
		note(part, true, false);
	free(map);
}

// Which of the listed ranges a card is in.
static long range_of(uint64_t card)
{
	char *address = arena + card * card_size;
	for (long i = 0; i < listed_count; i++)
		if ((char *)listed[i].start <= address && address < (char *)listed[i].start + listed[i].bytes)
			return i;
	return NONE;
}

static void list_runs(struct part part, bool take, uint64_t room)
{
	struct dt_range *runs = malloc(room * sizeof *runs + 1);
	check(runs);
	long n = dt_tracker_runs(tracker, take ? DT_LIST_TAKE : DT_LIST_PEEK, at_unit(part.start), part_bytes(part),
				 runs, room);
	uint64_t card = part.start * unit / card_size, stop = part.stop * unit / card_size;
	check(n >= 0 && (uint64_t)n <= room);
	for (long i = 0; i < n; i++) {
		uint64_t first = (uint64_t)((char *)runs[i].start - arena) / card_size;
		for (; card < first; card++)
			check(!is_due(card));
		check(runs[i].cards && runs[i].bytes == runs[i].cards * card_size);
		for (uint64_t end = first + runs[i].cards; card < end; card++) {
			check(is_due(card) && range_of(card) == range_of(first));
			check(number[card] == (int64_t)(runs[i].first_card + card - first));
		}
		check(card == stop || !is_due(card) || range_of(card) != range_of(first));
	}
	for (; (uint64_t)n < room && card < stop; card++)
		check(!is_due(card));
	if (take)
		note((struct part){part.start, card * card_size / unit}, false, false);
	free(runs);
}

// Taking by a list changes what is pending, but not what is tracked.
static void list(struct part part, bool take, uint64_t room)
{
	bool before[ARENA];
	memcpy(before, tracked, sizeof before);
	list_runs(part, take, room);
	memcpy(tracked, before, sizeof before);
}

static void watch(struct part part, bool take, size_t room)
{
	void **addresses = malloc(room * sizeof *addresses + 1);
	size_t n = room, granularity, found = 0;
	check(addresses);
	int error = dt_write_watch(tracker, take ? DT_LIST_TAKE : DT_LIST_PEEK, at_unit(part.start), part_bytes(part),
				   addresses, &n, &granularity);
	check(error == (all_tracked(part) ? 0 : -DT_EUNTRACKED));
	if (!error) {
		check(granularity == page_size);
		for_each_page(page, part) {
			if (!pending[page] || found == room)
				continue;
			check(found < n && addresses[found] == arena + page * page_size);
			found++;
			pending[page] = !take;
		}
		check(found == n);
	}
	free(addresses);
}

static void reset(struct part part)
{
	int error = dt_reset_write_watch(tracker, at_unit(part.start), part_bytes(part));
	check(error == (all_tracked(part) ? 0 : -DT_EUNTRACKED));
	if (!error)
		note(part, true, false);
}

static void store(uint64_t *random)
{
	uint64_t page = draw(random, ARENA);
	arena[page * page_size + draw(random, page_size)]++;
	pending[page] = tracked[page];
	if (beside)
		beside->stored(page);
}

static void mark(uint64_t *random)
{
	uint64_t start = draw(random, ARENA * page_size), bytes = 1 + draw(random, 3 * page_size);
	uint64_t last = (start + bytes - 1) / page_size;
	if (last >= ARENA)
		return;
	bool all = true;
	for (uint64_t page = start / page_size; page <= last; page++)
		all &= tracked[page];
	check(dt_tracker_mark(tracker, arena + start, bytes) == (all ? 0 : -DT_EUNTRACKED));
	for (uint64_t page = start / page_size; all && page <= last; page++)
		pending[page] = true;
	if (beside)
		beside->marked();
}

static void add_part(struct part part)
{
	uint64_t first = 0, card = part.start * unit / card_size;
	int error = dt_tracker_add(tracker, at_unit(part.start), part_bytes(part), DT_DENSE, &first);
	check(error == (any_tracked(part) ? -DT_EOVERLAP : 0));
	if (error)
		return;
	note(part, true, false);
	check_numbers();
	check(number[card] == (int64_t)first);
}

static void remove_part(struct part part)
{
	int error = dt_tracker_remove(tracker, at_unit(part.start), part_bytes(part));
	check(error == (all_tracked(part) ? 0 : -DT_EUNTRACKED));
	if (!error)
		note(part, false, false);
}

static void map_anew(struct part part)
{
	void *at = at_unit(part.start);
	check(mmap(at, part_bytes(part), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
}

// All of every range that a part touches is pending.
static void lose(struct part part)
{
	for (long i = 0; i < listed_count; i++) {
		uint64_t start = (uint64_t)((char *)listed[i].start - arena), stop = start + listed[i].bytes;
		if (start >= part.stop * unit || stop <= part.start * unit)
			continue;
		for (uint64_t page = start / page_size; page < stop / page_size; page++)
			pending[page] = true;
	}
}

// Memory is mapped over, and the tracker told; before or after a take has found that out.
static void replace_part(uint64_t *random, struct part part)
{
	struct dt_range lost;
	if (!all_tracked(part)) {
		check(dt_tracker_replace(tracker, at_unit(part.start), part_bytes(part)) == -DT_EUNTRACKED);
		return;
	}
	bool is_noticed = draw(random, 2), is_hole = draw(random, 2);
	if (beside)
		beside->mapping();
	check(dt_tracker_prepare(tracker) == 0); // nothing is mapped where the hole is
	if (is_hole && is_noticed)
		check(munmap(at_unit(part.start), part_bytes(part)) == 0);
	else
		map_anew(part);
	if (is_noticed) {
		lose(part);
		for (int i = 0; i < 2; i++) { // again and again
			look(i, !i);
			lose(part);
		}
		check(dt_tracker_lost(tracker, &lost, 1) >= 1);
		map_anew(part);
	}
	if (draw(random, 2)) {
		remove_part(part);
	} else {
		check(dt_tracker_replace(tracker, at_unit(part.start), part_bytes(part)) == 0);
		note(part, true, true);
	}
	check(dt_tracker_lost(tracker, &lost, 1) == 0);
}

static void refuse(void)
{
	uint8_t map[8];
	uint64_t place = 0;
	void *none = at_unit(0);
	while (place + 2 <= ARENA * page_size / unit && !all_tracked((struct part){place, place + 2}))
		place++;
	check(dt_tracker_remove(tracker, none, 0) == -EINVAL && dt_tracker_replace(tracker, none, 0) == -EINVAL);
	check(dt_tracker_remove(tracker, none, SIZE_MAX) == -EINVAL);
	check(dt_tracker_take_range(tracker, none, 0, map, 0, NULL) == -EINVAL);
	check(dt_tracker_runs(tracker, 2, NULL, SIZE_MAX, NULL, 0) == -EINVAL);
	if (place + 2 > ARENA * page_size / unit)
		return;
	char *middle = at_unit(place) + unit / 2;
	check(dt_tracker_remove(tracker, middle, unit) == -DT_EALIGN);
	check(dt_tracker_replace(tracker, middle, unit) == -DT_EALIGN);
	check(dt_tracker_take_range(tracker, middle, unit, map, 1, NULL) == -DT_EALIGN);
	check(dt_tracker_take_range(tracker, at_unit(place), unit, map, 0, NULL) == -DT_ESIZE);
}

static void step(uint64_t *random)
{
	struct part part = draw_part(random);
	bool take = draw(random, 2);
	switch (draw(random, 14)) {
	case 0:
		look(take, false);
		break;
	case 1:
		look_at(part, take);
		break;
	case 2:
		list(part, take, draw(random, 6));
		break;
	case 3:
		watch(part, take, draw(random, 6));
		break;
	case 4:
		reset(part);
		break;
	case 5:
	case 6:
		add_part(part);
		break;
	case 7:
		remove_part(part);
		break;
	case 8:
		replace_part(random, part);
		break;
	case 9:
		mark(random);
		break;
	case 10:
		check(dt_tracker_prepare(tracker) == 0);
		refuse();
		break;
	default:
		for (int i = 0; i < 4; i++)
			store(random);
	}
	check_numbers();
	if (beside)
		beside->look(random);
}

void try_fresh_tracker(uint64_t *random, struct dt_tracker *fresh, uint64_t size, unsigned flags,
		       const struct beside *others)
{
	tracker = fresh;
	card_size = size;
	beside = others;
	bytes_each = flags & DT_BYTES;
	unit = card_size > page_size ? card_size : page_size;
	memset(tracked, 0, sizeof tracked);
	memset(pending, 0, sizeof pending);
	for (uint64_t card = 0; card < cards(); card++)
		number[card] = NONE;
	add_part((struct part){2, ARENA * page_size / unit - 2});
	for (int round = 0; round < ROUNDS; round++)
		step(random);
	look(true, false);
	dt_tracker_close(tracker);
}

static void try_tracker(uint64_t *random, uint64_t size, unsigned flags)
{
	struct dt_tracker *fresh;
	check(dt_tracker_open(size, flags, &fresh) == 0);
	try_fresh_tracker(random, fresh, size, flags, NULL);
}

// What was removed from the middle of a range has its cards again; what was at its end leaves them to others.
static void try_numbers(void)
{
	uint64_t first;
	check(dt_tracker_open(page_size, DT_BITS, &tracker) == 0);
	check(dt_tracker_add(tracker, arena, 32 * page_size, DT_DENSE, &first) == 0 && first == 0);
	check(dt_tracker_remove(tracker, arena + 5 * page_size, 17 * page_size) == 0);
	check(dt_tracker_add(tracker, arena + 40 * page_size, 8 * page_size, DT_DENSE, &first) == 0 && first == 32);
	check(dt_tracker_add(tracker, arena + 9 * page_size, 2 * page_size, DT_DENSE, &first) == 0 && first == 9);
	check(dt_tracker_add(tracker, arena + 5 * page_size, 4 * page_size, DT_DENSE, &first) == 0 && first == 5);
	check(dt_tracker_remove(tracker, arena + 22 * page_size, 10 * page_size) == 0);
	check(dt_tracker_add(tracker, arena + 22 * page_size, 10 * page_size, DT_DENSE, &first) == 0 && first == 16);
	dt_tracker_close(tracker);
}

// Two trackers of the same memory, each with what it has not taken yet; the first one may be closed before the second.
struct sharer {
	struct dt_tracker *tracker;
	uint64_t card_pages;
	bool pending[ARENA];
};

static void look_shared(struct sharer *sharer, bool take)
{
	uint8_t map[ARENA];
	size_t n = dt_tracker_map_bytes(sharer->tracker);
	check(n == ARENA / sharer->card_pages);
	check((take ? dt_tracker_take : dt_tracker_peek)(sharer->tracker, map, n, NULL) == 0);
	for (uint64_t card = 0; card < n; card++) {
		bool due = false;
		for (uint64_t i = 0; i < sharer->card_pages; i++)
			due |= sharer->pending[card * sharer->card_pages + i];
		check(map[card] == due);
	}
	if (take)
		memset(sharer->pending, 0, sizeof sharer->pending);
}

static void replace_shared(struct sharer *sharers, uint64_t *random)
{
	uint64_t page = 4 * draw(random, ARENA / 4);
	bool is_noticed = draw(random, 2);
	unit = page_size;
	map_anew((struct part){page, page + 4});
	if (is_noticed) { // by the one that does not replace it
		memset(sharers[1].pending, 1, ARENA);
		look_shared(&sharers[1], true);
		memset(sharers[1].pending, 1, ARENA);
		memset(sharers[0].pending, 1, ARENA);
	}
	check(dt_tracker_replace(sharers[0].tracker, arena + page * page_size, 4 * page_size) == 0);
	for (int i = 0; i < 2; i++)
		memset(sharers[i].pending + page, 1, 4);
}

static void try_shared(uint64_t *random)
{
	struct sharer sharers[2] = {{.card_pages = 1}, {.card_pages = 4}};
	size_t bytes = ARENA * page_size;
	check(dt_tracker_open(page_size, DT_BYTES, &sharers[0].tracker) == 0);
	check(dt_tracker_open_shared(NULL, page_size, 0, &sharers[1].tracker) == -EINVAL);
	check(dt_tracker_open_shared(sharers[0].tracker, 3, 0, &sharers[1].tracker) == -EINVAL);
	check(dt_tracker_open_shared(sharers[0].tracker, 4 * page_size, DT_BYTES, &sharers[1].tracker) == 0);
	check(dt_tracker_add(sharers[0].tracker, arena, bytes, DT_DENSE, NULL) == 0);
	for (uint64_t page = 0; page < 8; page++)
		arena[page * page_size]++;
	memset(sharers[0].pending, 1, 8);
	check(dt_tracker_add(sharers[1].tracker, arena, bytes, DT_DENSE, NULL) == 0); // begins clean
	for (int round = 0; round < 200; round++) {
		for (uint64_t n = draw(random, 4); n; n--) {
			uint64_t page = draw(random, ARENA);
			arena[page * page_size]++;
			sharers[0].pending[page] = sharers[1].pending[page] = true;
		}
		look_shared(&sharers[draw(random, 2)], draw(random, 2));
		if (draw(random, 8) == 0)
			replace_shared(sharers, random);
	}
	int first = (int)draw(random, 2);
	dt_tracker_close(sharers[first].tracker);
	arena[0]++;
	sharers[!first].pending[0] = true;
	look_shared(&sharers[!first], true);
	dt_tracker_close(sharers[!first].tracker);
}

// Marks of what was removed are gone with it, when it is added again; those of what is left stay.
static void try_removed_marks(void)
{
	uint64_t first, dirty;
	uint8_t map[8];
	check(dt_tracker_open(page_size, DT_BYTES, &tracker) == 0);
	check(dt_tracker_add(tracker, arena, 8 * page_size, DT_DENSE, NULL) == 0);
	check(dt_tracker_mark(tracker, arena + page_size, 5 * page_size) == 0);
	check(dt_tracker_remove(tracker, arena + 2 * page_size, 3 * page_size) == 0);
	check(dt_tracker_add(tracker, arena + 2 * page_size, 3 * page_size, DT_DENSE, &first) == 0 && first == 2);
	check(dt_tracker_take(tracker, map, 8, &dirty) == 0 && dirty == 2 && map[1] && map[5]);
	dt_tracker_close(tracker);
}

// A mark is the tracker's that it was made to until that one looks, whatever becomes of its ranges.
static void try_marks_of_one(void)
{
	struct dt_tracker *other;
	uint64_t dirty;
	uint8_t map[8];
	check(dt_tracker_open(page_size, DT_BYTES, &tracker) == 0);
	check(dt_tracker_open_shared(tracker, page_size, DT_BYTES, &other) == 0);
	check(dt_tracker_add(tracker, arena, 8 * page_size, DT_DENSE, NULL) == 0);
	check(dt_tracker_add(other, arena, 8 * page_size, DT_DENSE, NULL) == 0);
	check(dt_tracker_mark(tracker, arena + page_size, 5 * page_size) == 0);
	check(dt_tracker_remove(tracker, arena + 3 * page_size, page_size) == 0);
	check(dt_tracker_take(other, map, 8, &dirty) == 0 && dirty == 0);
	check(dt_tracker_take(tracker, map, 8, &dirty) == 0 && dirty == 4 && !map[3]);
	check(dt_tracker_take(other, map, 8, &dirty) == 0 && dirty == 4 && !map[3]);
	dt_tracker_close(tracker);
	dt_tracker_close(other);
}

// Memory that another tracker had, and that was mapped anew, is this one's: the other takes none of its stores.
static void try_rivals(void)
{
	struct dt_tracker *old;
	uint64_t dirty;
	uint8_t map;
	unit = page_size;
	check(dt_tracker_open(page_size, DT_BITS, &old) == 0 && dt_tracker_open(page_size, DT_BITS, &tracker) == 0);
	check(dt_tracker_add(old, arena, 4 * page_size, DT_DENSE, NULL) == 0);
	for (int is_replaced = 0; is_replaced < 2; is_replaced++) {
		map_anew((struct part){0, 4});
		check((is_replaced ? dt_tracker_replace(tracker, arena, 4 * page_size)
				   : dt_tracker_add(tracker, arena, 4 * page_size, DT_DENSE, NULL)) == 0);
		check(dt_tracker_take(tracker, &map, 1, &dirty) == 0 && dirty == (is_replaced ? 4 : 0));
		arena[page_size]++;
		check(dt_tracker_take(old, &map, 1, &dirty) == 0 && dirty == 4);
		check(dt_tracker_lost(old, NULL, 0) == 1);
		check(dt_tracker_take(tracker, &map, 1, &dirty) == 0 && dirty == 1 && map == 2);
		map_anew((struct part){0, 4});
		check(dt_tracker_replace(old, arena, 4 * page_size) == 0);
	}
	dt_tracker_close(tracker);
	dt_tracker_close(old);
}

// What can't be added is not touched.
static void try_refused_first(void)
{
	unit = page_size;
	check(dt_tracker_open(page_size, DT_BITS, &tracker) == 0);
	check(dt_tracker_add(tracker, arena, 4 * page_size, DT_DENSE, NULL) == 0);
	char *hole = arena + 4 * page_size;
	check(munmap(hole, page_size) == 0);
	check(dt_tracker_add(tracker, hole - page_size, 2 * page_size, DT_DENSE, NULL) == -DT_EOVERLAP);
	check(dt_tracker_add(tracker, hole + 1, page_size, DT_DENSE, NULL) == -DT_EALIGN);
	check(dt_tracker_add(tracker, hole, page_size, DT_DENSE, NULL) == -ENOMEM);
	map_anew((struct part){4, 5});
	dt_tracker_close(tracker);
}

// What one loses and the other replaces is good again for both, whatever is asked first.
static void try_shared_watch(void)
{
	struct dt_tracker *other;
	void *addresses[2];
	size_t n = 2;
	unit = page_size;
	check(dt_tracker_open(page_size, DT_BITS, &other) == 0);
	check(dt_tracker_open_shared(other, page_size, DT_BITS, &tracker) == 0);
	check(dt_tracker_add(other, arena, 4 * page_size, DT_DENSE, NULL) == 0);
	check(dt_tracker_add(tracker, arena, 4 * page_size, DT_DENSE, NULL) == 0);
	map_anew((struct part){2, 3});
	for (int i = 0; i < 2; i++)
		check(dt_write_watch(tracker, DT_LIST_TAKE, arena, 4 * page_size, addresses, &n, NULL) == -DT_ELOST);
	check(dt_tracker_replace(other, arena + 2 * page_size, page_size) == 0);
	check(dt_write_watch(tracker, DT_LIST_TAKE, arena + page_size, page_size, addresses, &n, NULL) == 0);
	check(n == 1 && addresses[0] == arena + page_size);
	check(dt_reset_write_watch(tracker, arena, 4 * page_size) == 0);
	check(dt_write_watch(tracker, DT_LIST_PEEK, arena, 4 * page_size, addresses, &n, NULL) == 0 && n == 0);
	dt_tracker_close(tracker);
	dt_tracker_close(other);
}

#ifndef __SANITIZE_THREAD__ // which holds a lock of its own in an atomic store, and the handler would wait for it

// A thread in the middle of a mark: it has found its range, and is about to set the first bit when that faults.
static struct {
	struct dt_cards *cards;
	char *heap, *words; // the page of the bit
	uint64_t from, to;  // pages that are removed then
} marking;

static void remove_meanwhile(int signal)
{
	(void)signal;
	check(mprotect(marking.words, page_size, PROT_READ | PROT_WRITE) == 0);
	check(dt_ranges_remove(marking.cards, (uintptr_t)marking.heap + marking.from * page_size,
			       (uintptr_t)marking.heap + marking.to * page_size) == 0);
}

// Marks a page while other ones of its range are removed, or all are; how many cards the next take has.
static int64_t mark_beside_removal(uint64_t pages, uint64_t page, uint8_t *map)
{
	char *block = (char *)marking.cards->segments.by_address[0]->marked;
	uint64_t address = (uintptr_t)marking.heap + page * page_size;
	marking.words = block + page / 8 - (uintptr_t)(block + page / 8) % page_size;
	check(marking.words > block && marking.words + page_size < block + pages / 8);
	check(mprotect(marking.words, page_size, PROT_READ) == 0);
	check(dt_cards_mark(marking.cards, address, 1) == 0);
	return dt_cards_look(marking.cards, DT_COLLECT, 0, 0, map, dt_cards_map_bytes(marking.cards));
}

static void try_late_marks(void)
{
	const uint64_t pages = 32 * page_size, middle = pages / 2; // four pages of bits
	const struct sigaction meanwhile = {.sa_handler = remove_meanwhile};
	struct sigaction before[2];
	struct dt_session *own = open_tracker(DT_HOLES_REPORTED);
	uint64_t cursor, first;
	uint8_t *map = malloc(pages);
	marking.heap = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(map && marking.heap != MAP_FAILED && dt_cursor_open(own, &cursor) == 0);
	check(dt_cards_open(own, cursor, (uint32_t)page_shift, DT_BYTES, &marking.cards) == 0);
	check(sigaction(SIGSEGV, &meanwhile, &before[0]) == 0 && sigaction(SIGBUS, &meanwhile, &before[1]) == 0);
	for (int whole = 0; whole < 2; whole++) {
		uint64_t start = (uintptr_t)marking.heap;
		check(dt_ranges_add(marking.cards, start, start + pages * page_size, DT_SPARSE, &first) == 0);
		marking.from = whole ? 0 : middle + 1;
		marking.to = whole ? pages : middle + 2;
		check(mark_beside_removal(pages, middle, map) == !whole);
		check(whole || map[first + middle]);
		check(dt_cards_look(marking.cards, DT_COLLECT, 0, 0, map, dt_cards_map_bytes(marking.cards)) == 0);
		check(!marking.cards->marks.removed);
		dt_ranges_remove_all(marking.cards);
	}
	sigaction(SIGSEGV, &before[0], NULL);
	sigaction(SIGBUS, &before[1], NULL);
	dt_cards_close(marking.cards);
	dt_session_release(own);
	munmap(marking.heap, pages * page_size);
	free(map);
}

#endif

void try_ranges(uint64_t *random)
{
	try_numbers();
	try_removed_marks();
#ifndef __SANITIZE_THREAD__
	try_late_marks();
#endif
	try_marks_of_one();
	try_rivals();
	try_refused_first();
	try_shared_watch();
	for (int i = 0; i < 4; i++)
		try_shared(random);
	for (uint64_t quarter = 1; quarter <= 16; quarter *= 4) // of a page
		try_tracker(random, page_size / 4 * quarter, quarter == 1 ? DT_BYTES : DT_BITS);
	try_tracker(random, page_size, DT_BITS | DT_KEEP_HUGE_PAGES);
}
