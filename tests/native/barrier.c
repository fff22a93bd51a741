// Card tables and write watch, against a list of the pages that were written.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "barrier/writewatch.h"
#include "driver.h"

enum { RANGES = 3, WATCHED = 40 };

static struct dt_tracker *tracker;
static struct dt_range ranges[RANGES];
static bool written[PAGES];

static void write_some(uint64_t *random)
{
	for (uint64_t n = draw(random, 8); n; n--) {
		const struct dt_range *range = &ranges[draw(random, RANGES)];
		char *at = (char *)range->start + draw(random, range->bytes);
		if (draw(random, 4))
			++*at;
		else
			check(dt_tracker_mark(tracker, at, 1) == 0);
		written[(uint64_t)(at - memory) / page_size] = true;
	}
}

// Whether a page that a card touches was written.
static bool is_dirty(uint64_t address, uint64_t card_size)
{
	uint64_t from = address - (uintptr_t)memory;
	for (uint64_t page = from / page_size; page <= (from + card_size - 1) / page_size; page++)
		if (written[page])
			return true;
	return false;
}

static void compare(const uint8_t *map, bool bytes, uint64_t card_size, uint64_t dirty)
{
	uint64_t total = 0;
	for (int i = 0; i < RANGES; i++) {
		for (uint64_t card = 0; card < ranges[i].cards; card++) {
			uint64_t number = ranges[i].first_card + card;
			bool set = bytes ? map[number] : map[number / 8] >> number % 8 & 1;
			check(set == is_dirty((uint64_t)ranges[i].start + card * card_size, card_size));
			total += set;
		}
	}
	check(total == dirty);
}

static void add_range(int i, uint64_t first_byte, uint64_t bytes, uint64_t card_size)
{
	ranges[i] = (struct dt_range){memory + first_byte, bytes, 0, bytes / card_size};
	check(dt_tracker_add(tracker, ranges[i].start, bytes, DT_DENSE, &ranges[i].first_card) == 0);
}

static void try_table(uint64_t *random, uint64_t card_size, unsigned flags)
{
	check(dt_tracker_open(card_size, flags, &tracker) == 0);
	memset(written, 0, sizeof written);
	add_range(0, 0, 4 * page_size + 2 * card_size, card_size);
	add_range(1, 8 * page_size, 5 * card_size, card_size);
	add_range(2, 64 * page_size, 128 * page_size, card_size);
	check(dt_tracker_add(tracker, memory, card_size, DT_DENSE, NULL) == -DT_EOVERLAP);
	check(dt_tracker_add(tracker, memory + 1, card_size, DT_DENSE, NULL) == -DT_EALIGN);
	for (int round = 0; round < 40; round++) {
		write_some(random);
		size_t bytes = dt_tracker_map_bytes(tracker);
		uint8_t *map = malloc(bytes); // nothing beyond it is touched
		uint64_t dirty;
		check(map && dt_tracker_take(tracker, map, bytes + 1, NULL) == -DT_ESIZE);
		check(dt_tracker_peek(tracker, map, bytes, &dirty) == 0);
		compare(map, flags & DT_BYTES, card_size, dirty);
		check(dt_tracker_take(tracker, map, bytes, &dirty) == 0);
		compare(map, flags & DT_BYTES, card_size, dirty);
		free(map);
		memset(written, 0, sizeof written);
		if (draw(random, 4) == 0) {
			check(dt_tracker_remove(tracker, ranges[1].start, ranges[1].bytes) == 0);
			check(dt_tracker_remove(tracker, ranges[1].start, ranges[1].bytes) == -DT_EUNTRACKED);
			check(dt_tracker_mark(tracker, ranges[1].start, 1) == -DT_EUNTRACKED);
			add_range(1, 8 * page_size, (1 + draw(random, 9)) * card_size, card_size);
		}
	}
	dt_tracker_close(tracker);
}

// A range that was mapped over has all its cards set, and is listed.
static void try_loss(void)
{
	struct dt_range lost;
	uint8_t map[2];
	check(dt_tracker_open(page_size, DT_BITS, &tracker) == 0);
	add_range(0, 0, 8 * page_size, page_size);
	add_range(1, 16 * page_size, 8 * page_size, page_size);
	char *over = mmap(ranges[1].start, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			  -1, 0);
	check(over == ranges[1].start);
	memory[page_size]++;
	check(dt_tracker_cards(tracker) == 16 && dt_tracker_lost(tracker, &lost, 1) == 0);
	check(dt_tracker_take(tracker, map, 2, NULL) == 0);
	check(map[0] == 2 && map[1] == 0xff);
	check(dt_tracker_lost(tracker, &lost, 1) == 1 && memcmp(&lost, &ranges[1], sizeof lost) == 0);
	check(dt_tracker_mark(tracker, over, 1) == 0);
	dt_tracker_close(tracker);
}

void try_cards(uint64_t *random)
{
	for (uint64_t shift = 4; shift < page_shift + 2; shift++)
		try_table(random, 1ULL << shift, shift % 2 ? DT_BYTES : DT_BITS);
	try_loss();
}

// Two regions side by side, asked for across their border, with room for some of the pages.
void try_write_watch(uint64_t *random)
{
	uint64_t cursor, granularity, start = (uintptr_t)memory;
	session = open_tracker(DT_HOLES_REPORTED);
	add(0, WATCHED / 2);
	add(WATCHED / 2, WATCHED);
	check(dt_cursor_open(session, &cursor) == 0);
	memset(written, 0, sizeof written);
	for (int round = 0; round < 200; round++) {
		for (uint64_t n = draw(random, 6); n; n--) {
			uint64_t page = draw(random, WATCHED);
			memory[page * page_size]++;
			written[page] = true;
		}
		uint64_t from = draw(random, WATCHED), to = from + 1 + draw(random, WATCHED - from);
		uint64_t found = draw(random, 9);
		uint64_t *addresses = malloc(found * sizeof *addresses + 1), room = found, expected = 0;
		int reset = (int)draw(random, 2);
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		bool is_settled = draw(random, 4) != 0; // or it dies, and takes nothing
		check(addresses && epoch);
		check(dt_session_write_watch(session, cursor, start + from * page_size, start + to * page_size, reset,
					     addresses, &found, &granularity, epoch) == 0);
		epoch->settled |= is_settled;
		dt_epoch_release(epoch);
		for (uint64_t page = from; page < to && expected < room; page++) {
			if (!written[page])
				continue;
			check(expected < found && addresses[expected++] == start + page * page_size);
			written[page] = !reset || !is_settled;
		}
		check(found == expected && granularity == page_size);
		free(addresses);
	}
	uint64_t none = 0;
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch && dt_session_write_watch(session, cursor, start, start + (WATCHED + 1) * page_size, 0, NULL, &none,
					      &granularity, epoch) == -DT_EUNTRACKED);
	dt_epoch_release(epoch);
	dt_session_release(session);
}
