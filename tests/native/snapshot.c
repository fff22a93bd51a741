// Snapshots and histories, of two regions that share a page.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "driver.h"
#include "failing.h"
#include "snapshot/history.h"
#include "snapshot/snapshot.h"

enum { STATES = 6 };

static struct dt_extent extents[REGIONS];
static uint8_t *copies[REGIONS];
static struct dt_slice slices[REGIONS];
static uint64_t cursor;

static uint8_t *memory_of(int i)
{
	return (uint8_t *)(uintptr_t)extents[i].address;
}

static void make_copies(void)
{
	make_extents(extents, slices);
	check(dt_cursor_open(session, &cursor) == 0);
	for (int i = 0; i < REGIONS; i++) {
		copies[i] = calloc(1, extents[i].nbytes);
		check(copies[i]);
		dt_copy(memory_of(i), extents[i].nbytes, page_size, copies[i]);
	}
}

static void free_copies(void)
{
	for (int i = 0; i < REGIONS; i++)
		free(copies[i]);
}

// A page that can't be written, or read, is found before anything touches it.
static void try_protection(const struct dt_epoch *epoch)
{
	const struct dt_entry *entries = epoch->buffers.entries;
	const struct dt_run *runs = epoch->buffers.runs;
	char *page = memory + (runs + entries[1].first_run)->start * page_size + 5 * page_size;
	int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	check(dt_find_protected(maps, extents, REGIONS, entries, runs, 1) == REGIONS);
	check(mprotect(page, page_size, PROT_READ) == 0);
	check(dt_find_protected(maps, extents, REGIONS, entries, runs, 1) == 1);
	check(dt_find_protected(maps, extents, REGIONS, entries, runs, 0) == REGIONS);
	check(mprotect(page, page_size, PROT_READ | PROT_WRITE) == 0);
	fail_call(1, ONCE, EIO);
	check(dt_find_protected(maps, extents, REGIONS, entries, runs, 0) == -EIO);
	dt_close(maps);
}

static void scribble(uint64_t *random)
{
	for (uint64_t n = draw(random, 6); n; n--)
		memset(memory + draw(random, 23 * page_size), (int)draw(random, 3), draw(random, page_size));
}

static struct dt_epoch *peek(void)
{
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch && dt_collect(session, cursor, DT_PEEK, slices, REGIONS, epoch) == 0);
	return epoch;
}

static bool equals(int i, const uint8_t *contents)
{
	return memcmp(memory_of(i), contents, extents[i].nbytes) == 0;
}

// What a diff says, against a loop over the bytes.
static void try_diff(uint64_t gap)
{
	struct dt_epoch *open = peek();
	struct dt_changes *changes = dt_changes_new(sizeof *changes);
	uint64_t sizes[REGIONS], seen = 0;
	check(changes && dt_compare_pages(changes, extents, copies, REGIONS, open, gap, UINT64_MAX) == 0);
	const struct dt_change *change = changes->changes;
	for (int i = 0; i < REGIONS; i++) {
		const uint8_t *now = memory_of(i), *before = copies[i];
		sizes[i] = extents[i].nbytes;
		for (uint64_t at = 0; at < sizes[i]; at++) {
			if (now[at] == before[at])
				continue;
			while (change->region < (uint64_t)i || change->stop <= at)
				change++;
			check(change->region == (uint64_t)i && change->start <= at);
			check(changes->before[change->at + at - change->start] == before[at]);
			check(changes->after[change->at + at - change->start] == now[at]);
			seen++;
		}
	}
	check(gap ? seen <= changes->bytes : seen == changes->bytes);
	check(dt_changes_valid(changes->changes, changes->change_count, sizes, REGIONS, changes->bytes));
	uint8_t *memories[REGIONS], *targets[REGIONS];
	for (int i = 0; i < REGIONS; i++) {
		memories[i] = memory_of(i);
		targets[i] = malloc(sizes[i]);
		check(targets[i]);
		memcpy(targets[i], copies[i], sizes[i]);
	}
	size_t n = changes->change_count;
	check(dt_changes_match(changes->changes, n, changes->after, memories) == n);
	check(n == 0 || dt_changes_match(changes->changes, n, changes->before, memories) == 0);
	dt_changes_apply(changes->changes, n, changes->after, targets);
	for (int i = 0; i < REGIONS; i++) {
		check(equals(i, targets[i]));
		free(targets[i]);
	}
	dt_changes_free(changes);
	dt_epoch_release(open);
}

void try_snapshot(uint64_t *random)
{
	session = open_tracker(DT_HOLES_REPORTED);
	make_copies();
	for (int round = 0; round < 60; round++) {
		scribble(random);
		try_diff(draw(random, 3) * 5);
		struct dt_epoch *open = peek(), *taken = dt_epoch_new(sizeof *taken);
		if (draw(random, 2)) {
			check(dt_rollback(session, cursor, slices, REGIONS, extents, copies, open, taken) == 0);
		} else {
			check(dt_collect(session, cursor, DT_COLLECT, slices, REGIONS, taken) == 0);
			dt_update(extents, copies, REGIONS, taken);
			taken->settled = 1;
		}
		for (int i = 0; i < REGIONS; i++)
			check(equals(i, copies[i]));
		dt_epoch_release(open);
		dt_epoch_release(taken);
		struct dt_epoch *rest = peek();
		check(rest->pages == 0);
		dt_epoch_release(rest);
	}
	memory[10 * page_size]++;
	struct dt_epoch *open = peek();
	try_protection(open);
	dt_epoch_release(open);
	free_copies();
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
		error = dt_history_save(history, session, cursor, slices, state, epoch);
		succeed();
		check(error == 0 || (error == -ENOMEM && !dt_history_has(history, state)));
		dt_epoch_release(epoch);
	}
}

void try_history(uint64_t *random)
{
	uint8_t *states[STATES + 1][REGIONS];
	session = open_tracker(DT_HOLES_REPORTED);
	make_copies();
	struct dt_history *history = dt_history_new(sizeof *history);
	check(history && dt_history_open(history, extents, REGIONS) == 0);
	for (int state = 0; state <= STATES; state++)
		for (int i = 0; i < REGIONS; i++)
			check(states[state][i] = malloc(extents[i].nbytes));
	for (int round = 0; round < 200; round++) {
		uint64_t state = 1 + draw(random, STATES);
		scribble(random);
		if (!dt_history_has(history, state)) {
			save_at_last(history, state);
			for (int i = 0; i < REGIONS; i++)
				memcpy(states[state][i], memory_of(i), extents[i].nbytes);
		} else if (draw(random, 3) == 0) {
			dt_history_drop(history, state);
			check(!dt_history_has(history, state));
		} else {
			struct dt_epoch *open = peek(), *taken = dt_epoch_new(sizeof *taken);
			check(taken && dt_history_plan(history, state, open) == 0);
			check(dt_history_restore(history, session, cursor, slices, state, taken) == 0);
			check(history->current == state);
			for (int i = 0; i < REGIONS; i++)
				check(equals(i, states[state][i]));
			dt_epoch_release(open);
			dt_epoch_release(taken);
		}
	}
	struct dt_epoch *open = peek();
	check(dt_history_plan(history, STATES + 1, open) == -EINVAL);
	dt_epoch_release(open);
	for (int state = 0; state <= STATES; state++)
		for (int i = 0; i < REGIONS; i++)
			free(states[state][i]);
	free_copies();
	dt_history_free(history);
	dt_session_release(session);
}
