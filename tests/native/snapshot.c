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
static struct dt_snapshot snapshot = {slices, extents, copies, REGIONS, 0, -1};
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
	}
	struct dt_failure failure;
	snapshot.maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	check(dt_snapshot_fill(session, cursor, &snapshot, &failure) == 0);
}

static void free_copies(void)
{
	for (int i = 0; i < REGIONS; i++)
		free(copies[i]);
	dt_close(snapshot.maps);
}

static struct dt_epoch *new_epoch(void)
{
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch);
	return epoch;
}

static int diff(int verb, struct dt_changes **changes_ret, uint64_t gap, uint64_t limit, struct dt_epoch *epoch)
{
	*changes_ret = dt_changes_new(sizeof **changes_ret);
	check(*changes_ret);
	return dt_snapshot_diff(session, cursor, &snapshot, verb, *changes_ret, gap, limit, epoch);
}

static int try_verb(bool write, struct dt_failure *failure_ret)
{
	struct dt_epoch *open = new_epoch(), *taken = new_epoch();
	struct dt_changes *changes;
	int error = write ? dt_snapshot_rollback(session, cursor, &snapshot, open, taken)
			  : diff(DT_PEEK, &changes, 0, UINT64_MAX, open);
	*failure_ret = write ? taken->failure : open->failure;
	if (!write)
		dt_changes_free(changes);
	dt_epoch_release(open);
	dt_epoch_release(taken);
	return error;
}

// A page that can't be written, or read, is found before anything touches it; also where that can't be asked.
static void try_protection(void)
{
	struct dt_failure failure;
	char *page = memory + 10 * page_size;
	int maps = snapshot.maps;
	for (int asks = 0; asks < 2; asks++) {
		snapshot.maps = asks ? maps : -1;
		*page += 1;
		check(mprotect(page, page_size, PROT_READ) == 0);
		check(try_verb(false, &failure) == 0);
		check(try_verb(true, &failure) == -EACCES);
		check(failure.start == (uintptr_t)page && failure.stop == failure.start + page_size);
		check(mprotect(page, page_size, PROT_NONE) == 0);
		check(try_verb(false, &failure) == -EACCES && failure.start == (uintptr_t)page);
		check(mprotect(page, page_size, PROT_READ | PROT_WRITE) == 0);
		check(try_verb(true, &failure) == 0);
	}
}

static void scribble(uint64_t *random)
{
	for (uint64_t n = draw(random, 6); n; n--)
		memset(memory + draw(random, 23 * page_size), (int)draw(random, 3), draw(random, page_size));
}

static struct dt_epoch *peek(void)
{
	struct dt_epoch *epoch = new_epoch();
	check(dt_collect(session, cursor, DT_PEEK, slices, REGIONS, epoch) == 0);
	return epoch;
}

static bool equals(int i, const uint8_t *contents)
{
	return memcmp(memory_of(i), contents, extents[i].nbytes) == 0;
}

// What a diff says, against a loop over the bytes.
static void try_diff(uint64_t gap)
{
	struct dt_epoch *open = new_epoch();
	struct dt_changes *changes;
	uint64_t sizes[REGIONS], seen = 0;
	check(diff(DT_PEEK, &changes, gap, UINT64_MAX, open) == 0);
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
	struct dt_extent targets[REGIONS];
	struct dt_failure failure;
	for (int i = 0; i < REGIONS; i++) {
		targets[i] = extents[i];
		targets[i].fallible = gap != 0;
		targets[i].address = (uintptr_t)malloc(sizes[i]);
		targets[i].offset = targets[i].address % page_size;
		check(targets[i].address);
		memcpy((void *)(uintptr_t)targets[i].address, copies[i], sizes[i]);
	}
	size_t n = changes->change_count, place;
	check(dt_changes_match(changes->changes, n, changes->after, extents, &place, &failure) == 0 && place == n);
	check(dt_changes_match(changes->changes, n, changes->before, extents, &place, &failure) == 0 && place == 0);
	check(dt_changes_check(changes->changes, n, targets, &failure) == 0);
	check(dt_changes_apply(changes->changes, n, changes->after, targets, &failure) == 0);
	for (int i = 0; i < REGIONS; i++) {
		uint8_t *target = (uint8_t *)(uintptr_t)targets[i].address;
		check(equals(i, target));
		free(target);
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
		for (int i = 0; i < REGIONS; i++)
			extents[i].fallible = draw(random, 2);
		struct dt_epoch *open = new_epoch(), *taken = new_epoch();
		uint64_t way = draw(random, 3);
		if (way == 0) {
			check(dt_snapshot_rollback(session, cursor, &snapshot, open, taken) == 0);
		} else if (way == 1) {
			check(dt_snapshot_advance(session, cursor, &snapshot, taken) == 0);
			taken->settled = 1;
		} else {
			struct dt_changes *changes, *again;
			check(diff(DT_COLLECT, &changes, draw(random, 3) * 5, UINT64_MAX, taken) == 0);
			if (draw(random, 2)) {
				dt_snapshot_take_back(&snapshot, changes, taken);
				check(diff(DT_COLLECT, &again, 0, UINT64_MAX, taken) == 0);
				dt_changes_free(again);
			}
			taken->settled = 1;
			dt_changes_free(changes);
		}
		for (int i = 0; i < REGIONS; i++)
			check(equals(i, copies[i]));
		dt_epoch_release(open);
		dt_epoch_release(taken);
		struct dt_epoch *rest = peek();
		check(rest->pages == 0);
		dt_epoch_release(rest);
	}
	extents[0].fallible = extents[1].fallible = 0;
	try_protection();
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
	check(history && dt_history_open(history, extents, REGIONS, 0, snapshot.maps) == 0);
	for (int state = 0; state <= STATES; state++)
		for (int i = 0; i < REGIONS; i++)
			check(states[state][i] = malloc(extents[i].nbytes));
	uint64_t pages;
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
			struct dt_epoch *open = new_epoch(), *taken = new_epoch();
			check(dt_history_restore(history, session, cursor, slices, state, open, taken, &pages) == 0);
			check(history->current == state);
			for (int i = 0; i < REGIONS; i++)
				check(equals(i, states[state][i]));
			dt_epoch_release(open);
			dt_epoch_release(taken);
		}
	}
	struct dt_epoch *open = new_epoch(), *taken = new_epoch();
	check(dt_history_restore(history, session, cursor, slices, STATES + 1, open, taken, &pages) == -EINVAL);
	dt_epoch_release(open);
	dt_epoch_release(taken);
	for (int state = 0; state <= STATES; state++)
		for (int i = 0; i < REGIONS; i++)
			free(states[state][i]);
	free_copies();
	dt_history_free(history);
	dt_session_release(session);
}
