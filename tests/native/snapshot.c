// Snapshots and histories, of two regions that share a page.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "driver.h"
#include "failing.h"
#include "snapshot/history.h"

enum { STATES = 6 };

static struct dt_twin twins[SOURCES];
static struct dt_slice twin_slices[SOURCES];
static uint64_t twin_cursor;

static void make_twins(void)
{
	struct dt_source sources[SOURCES];
	make_sources(sources, twin_slices);
	check(dt_cursor_open(session, &twin_cursor) == 0);
	for (int i = 0; i < SOURCES; i++) {
		uint8_t *copy = calloc(1, sources[i].nbytes);
		check(copy);
		twins[i] = (struct dt_twin){sources[i].region, sources[i].address,   sources[i].nbytes,
					    sources[i].offset, sources[i].page_size, copy};
		dt_copy(&twins[i]);
	}
}

static void free_twins(void)
{
	for (int i = 0; i < SOURCES; i++)
		free(twins[i].copy);
}

// A page that can't be written, or read, is found before anything touches it.
static void try_protection(const struct dt_epoch *epoch)
{
	const struct dt_entry *entries = epoch->buffers.entries;
	const struct dt_run *runs = epoch->buffers.runs;
	char *page = memory + (runs + entries[1].first_run)->start * page_size + 5 * page_size;
	int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	check(dt_find_protected(maps, twins, SOURCES, entries, runs, 1) == SOURCES);
	check(mprotect(page, page_size, PROT_READ) == 0);
	check(dt_find_protected(maps, twins, SOURCES, entries, runs, 1) == 1);
	check(dt_find_protected(maps, twins, SOURCES, entries, runs, 0) == SOURCES);
	check(mprotect(page, page_size, PROT_READ | PROT_WRITE) == 0);
	fail_call(1, ONCE, EIO);
	check(dt_find_protected(maps, twins, SOURCES, entries, runs, 0) == -EIO);
	dt_close(maps);
}

static void scribble(uint64_t *random)
{
	for (uint64_t n = draw(random, 6); n; n--)
		memset(memory + draw(random, 23 * page_size), (int)draw(random, 3), draw(random, page_size));
}

static struct dt_epoch *peek_twins(void)
{
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch && dt_collect(session, twin_cursor, DT_PEEK, twin_slices, SOURCES, epoch) == 0);
	return epoch;
}

static bool equals(const struct dt_twin *twin, const uint8_t *contents)
{
	return memcmp((void *)(uintptr_t)twin->address, contents, twin->nbytes) == 0;
}

// What a diff says, against a loop over the bytes.
void try_diff(uint64_t gap)
{
	struct dt_epoch *open = peek_twins();
	struct dt_changes *changes = dt_changes_new(sizeof *changes);
	uint64_t sizes[SOURCES], seen = 0;
	check(changes && dt_compare_pages(changes, twins, SOURCES, open, gap, UINT64_MAX) == 0);
	const struct dt_change *change = changes->changes;
	for (uint64_t i = 0; i < SOURCES; i++) {
		const uint8_t *now = (const uint8_t *)(uintptr_t)twins[i].address;
		sizes[i] = twins[i].nbytes;
		for (uint64_t at = 0; at < twins[i].nbytes; at++) {
			if (now[at] == twins[i].copy[at])
				continue;
			while (change->region < i || change->stop <= at)
				change++;
			check(change->region == i && change->start <= at);
			check(changes->before[change->at + at - change->start] == twins[i].copy[at]);
			check(changes->after[change->at + at - change->start] == now[at]);
			seen++;
		}
	}
	check(gap ? seen <= changes->bytes : seen == changes->bytes);
	check(dt_changes_valid(changes->changes, changes->change_count, sizes, SOURCES, changes->bytes));
	uint8_t *memories[SOURCES], *copies[SOURCES];
	for (int i = 0; i < SOURCES; i++) {
		memories[i] = (uint8_t *)(uintptr_t)twins[i].address;
		copies[i] = malloc(twins[i].nbytes);
		check(copies[i]);
		memcpy(copies[i], twins[i].copy, twins[i].nbytes);
	}
	size_t n = changes->change_count;
	check(dt_changes_match(changes->changes, n, changes->after, memories) == n);
	check(n == 0 || dt_changes_match(changes->changes, n, changes->before, memories) == 0);
	dt_changes_apply(changes->changes, n, changes->after, copies);
	for (int i = 0; i < SOURCES; i++) {
		check(equals(&twins[i], copies[i]));
		free(copies[i]);
	}
	dt_changes_free(changes);
	dt_epoch_release(open);
}

void try_snapshot(uint64_t *random)
{
	session = open_tracker(0);
	make_twins();
	for (int round = 0; round < 60; round++) {
		scribble(random);
		try_diff(draw(random, 3) * 5);
		struct dt_epoch *open = peek_twins(), *taken = dt_epoch_new(sizeof *taken);
		if (draw(random, 2)) {
			check(dt_rollback(session, twin_cursor, twin_slices, SOURCES, twins, open, taken) == 0);
		} else {
			check(dt_collect(session, twin_cursor, DT_COLLECT, twin_slices, SOURCES, taken) == 0);
			dt_update(twins, SOURCES, taken);
			taken->settled = 1;
		}
		for (int i = 0; i < SOURCES; i++)
			check(equals(&twins[i], twins[i].copy));
		dt_epoch_release(open);
		dt_epoch_release(taken);
		struct dt_epoch *rest = peek_twins();
		check(rest->pages == 0);
		dt_epoch_release(rest);
	}
	memory[10 * page_size]++;
	struct dt_epoch *open = peek_twins();
	try_protection(open);
	dt_epoch_release(open);
	free_twins();
	dt_session_release(session);
}

// Saves, with a later one of its allocations failing at each try: what fails changes nothing and loses no page.
static void save_at_last(struct dt_history *history, uint64_t state)
{
	int error = -ENOMEM;
	for (long call = 1; error; call++) {
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		check(epoch);
		fail_call(call, ALLOCATIONS_ONLY, ENOMEM);
		error = dt_history_save(history, session, twin_cursor, twin_slices, state, epoch);
		succeed();
		check(error == 0 || (error == -ENOMEM && !dt_history_has(history, state)));
		dt_epoch_release(epoch);
	}
}

void try_history(uint64_t *random)
{
	uint8_t *copies[STATES + 1][SOURCES];
	session = open_tracker(0);
	make_twins();
	struct dt_history *history = dt_history_new(sizeof *history);
	check(history && dt_history_open(history, twins, SOURCES) == 0);
	for (int state = 0; state <= STATES; state++)
		for (int i = 0; i < SOURCES; i++)
			check(copies[state][i] = malloc(twins[i].nbytes));
	for (int round = 0; round < 200; round++) {
		uint64_t state = 1 + draw(random, STATES);
		scribble(random);
		if (!dt_history_has(history, state)) {
			save_at_last(history, state);
			for (int i = 0; i < SOURCES; i++)
				memcpy(copies[state][i], (void *)(uintptr_t)twins[i].address, twins[i].nbytes);
		} else if (draw(random, 3) == 0) {
			dt_history_drop(history, state);
			check(!dt_history_has(history, state));
		} else {
			struct dt_epoch *open = peek_twins(), *taken = dt_epoch_new(sizeof *taken);
			check(taken && dt_history_plan(history, state, open) == 0);
			check(dt_history_restore(history, session, twin_cursor, twin_slices, state, taken) == 0);
			check(history->current == state);
			for (int i = 0; i < SOURCES; i++)
				check(equals(&twins[i], copies[state][i]));
			dt_epoch_release(open);
			dt_epoch_release(taken);
		}
	}
	struct dt_epoch *open = peek_twins();
	check(dt_history_plan(history, STATES + 1, open) == -EINVAL);
	dt_epoch_release(open);
	for (int state = 0; state <= STATES; state++)
		for (int i = 0; i < SOURCES; i++)
			free(copies[state][i]);
	free_twins();
	dt_history_free(history);
	dt_session_release(session);
}
