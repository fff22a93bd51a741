// Every kind of session (adaptive with a double check, comparing) keeps a copy right, by the pages that it reports.
#include <fcntl.h>
#include <pthread.h>

#include "backends/adaptive.h"
#include "core/double_check.h"
#include "driver.h"

enum { ROUNDS = 400, HOT = 40 };

static uint64_t hot[HOT];

static void write_some(uint64_t *random, bool *written)
{
	memset(written, 0, PAGES);
	for (int i = 0; i < HOT; i++)
		if (draw(random, 10))
			written[hot[i]] = true;
	for (uint64_t i = draw(random, 20); i; i--)
		written[draw(random, PAGES)] = true;
	for (uint64_t page = 0; page < PAGES; page++)
		if (written[page])
			memory[page * page_size + draw(random, page_size)]++;
}

// What is reported beyond what was written has to be assumed; what is reported is copied, and then nothing may differ.
static void update(uint64_t region, uint64_t cursor, uint64_t start, uint64_t stop, const bool *written, char *copy)
{
	struct dt_slice slice = {region, start, stop};
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch);
	check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, epoch) == 0);
	const struct dt_entry *entry = epoch->buffers.entries;
	const struct dt_run *runs = epoch->buffers.runs + entry->first_run, *assumed = epoch->buffers.assumed;
	uint64_t refused;
	for (const struct dt_run *run = runs; run < runs + entry->run_count; run++)
		for (uint64_t page = run->start; page < run->stop; page++) {
			check(written[page] || dt_runs_contain(assumed, entry->assumed_count, page));
			check(dt_session_contents(session, (uintptr_t)memory + page * page_size, page_size,
						  copy + page * page_size, &refused) == 0);
		}
	epoch->settled = 1;
	dt_epoch_release(epoch);
	check(memcmp(copy + start * page_size, memory + start * page_size, (stop - start) * page_size) == 0);
}

static void run_session(struct dt_session *opened, uint64_t *random)
{
	static bool now[PAGES], since[PAGES];
	char *copy = malloc(PAGES * page_size);
	uint64_t cursor, region, other = 0;
	check(copy);
	session = opened;
	region = add(0, PAGES);
	check(dt_cursor_open(session, &cursor) == 0);
	memcpy(copy, memory, PAGES * page_size);
	memset(since, 0, sizeof since);
	for (int round = 0; round < ROUNDS; round++) {
		if (round % 100 == 0)
			for (int i = 0; i < HOT; i++)
				hot[i] = draw(random, PAGES);
		write_some(random, now);
		for (uint64_t page = 0; page < PAGES; page++)
			since[page] |= now[page];
		bool narrow = draw(random, 4) == 0;
		uint64_t start = narrow ? draw(random, PAGES) : 0;
		uint64_t stop = narrow ? start + 1 + draw(random, PAGES - start) : PAGES;
		update(region, cursor, start, stop, since, copy);
		memset(since + start, 0, stop - start);
		if (draw(random, 8) == 0 && other) {
			check(dt_session_remove(session, other) == 0);
			other = 0;
		} else if (!other) { // it shares its pages with the first one
			start = draw(random, PAGES);
			other = add(start, start + 1 + draw(random, PAGES - start));
		}
	}
	check(dt_session_missed(session, NULL, 0) == 0);
	dt_session_release(session);
	free(copy);
}

static bool writer_stops;

static void *write_on(void *argument)
{
	uint64_t random = 1;
	while (!__atomic_load_n(&writer_stops, __ATOMIC_RELAXED))
		__atomic_add_fetch(memory + draw(&random, PAGES) * page_size, 1, __ATOMIC_RELAXED);
	return argument;
}

// Stores that fall between a scan and its check are no misses.
static void check_beside_a_writer(struct dt_session *opened)
{
	pthread_t writer;
	struct dt_slice slice = {0, 0, PAGES};
	session = opened;
	check(dt_session_double_check(session, 1, 0) == 0);
	slice.region = add(0, PAGES);
	uint64_t cursor;
	check(dt_cursor_open(session, &cursor) == 0);
	__atomic_store_n(&writer_stops, false, __ATOMIC_RELAXED);
	check(pthread_create(&writer, NULL, write_on, NULL) == 0);
	for (int i = 0; i < ROUNDS; i++) {
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		check(epoch && dt_collect(session, cursor, DT_COLLECT, &slice, 1, epoch) == 0);
		epoch->settled = 1;
		dt_epoch_release(epoch);
	}
	__atomic_store_n(&writer_stops, true, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	dt_session_release(session);
}

void try_kinds(uint64_t *random)
{
	check_beside_a_writer(open_tracker(DT_HOLES_REPORTED));
	static const enum dt_hole_reporting kernels[] = {DT_HOLES_REPORTED, DT_HOLES_UNREPORTED_FOR_TESTS};
	for (int i = 0; i < 2; i++) {
		struct dt_session *adaptive = open_tracker(kernels[i]);
		check(dt_session_adapt(adaptive) == 0);
		check(dt_session_double_check(adaptive, 0.3, 0) == 0);
		run_session(adaptive, random);
	}
	run_session(open_compare(), random);
}
