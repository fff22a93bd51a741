// Snapshots and histories, of two regions that share a page.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "driver.h"
#include "failing.h"
#include "snapshot/copies.h"
#include "snapshot/history.h"
#include "snapshot/merging.h"
#include "snapshot/packing.h"

enum { STATES = 6 };

static struct dt_extent extents[REGIONS];
static uint8_t *copies[REGIONS];
static struct dt_slice slices[REGIONS];
static struct dt_copies snapshot = {slices, extents, copies, REGIONS, 0, -1};
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
	check(dt_copies_fill(session, cursor, &snapshot, &failure) == 0);
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
	const struct dt_comparing how = {.gap = gap, .limit = limit};
	return dt_copies_diff(session, cursor, &snapshot, verb, *changes_ret, &how, epoch);
}

static int try_verb(bool write, struct dt_failure *failure_ret)
{
	struct dt_epoch *open = new_epoch(), *taken = new_epoch();
	struct dt_changes *changes;
	int error = write ? dt_copies_rollback(session, cursor, &snapshot, open, taken)
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

// There and back; cut anywhere, or beyond what a region has, it is none.
static void try_packing(const struct dt_changes *changes, uint64_t *sizes)
{
	size_t n = changes->change_count;
	uint64_t counts[REGIONS] = {0}, bytes, nbytes = dt_pack(changes->changes, n, NULL);
	uint8_t *packed = malloc(nbytes + 1);
	struct dt_change *again = calloc(n + 1, sizeof *again);
	check(packed && again);
	for (size_t i = 0; i < n; i++)
		counts[changes->changes[i].region]++;
	check(dt_pack(changes->changes, n, packed) == nbytes);
	// Its contents are not here, but there have to be as many bytes as if they were.
	uint64_t there = nbytes + changes->bytes;
	packed = realloc(packed, there + 1);
	check(packed);
	check(dt_unpack(packed, there, sizes, counts, REGIONS, again, &bytes) == nbytes && bytes == changes->bytes);
	if (n) {
		check(memcmp(again, changes->changes, n * sizeof *again) == 0);
		check(dt_unpack(packed, nbytes - 1, sizes, counts, REGIONS, again, &bytes) == 0);
		check(dt_unpack(packed, changes->bytes - 1, sizes, counts, REGIONS, again, &bytes) == 0);
		const struct dt_change *last = &changes->changes[n - 1];
		uint64_t size = sizes[last->region];
		sizes[last->region] = last->stop - 1;
		check(dt_unpack(packed, there, sizes, counts, REGIONS, again, &bytes) == 0);
		sizes[last->region] = size;
	}
	free(packed);
	free(again);
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
	try_packing(changes, sizes);
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
			check(dt_copies_rollback(session, cursor, &snapshot, open, taken) == 0);
		} else if (way == 1) {
			check(dt_copies_advance(session, cursor, &snapshot, taken) == 0);
			taken->settled = 1;
		} else {
			struct dt_changes *changes, *again;
			check(diff(DT_COLLECT, &changes, draw(random, 3) * 5, UINT64_MAX, taken) == 0);
			if (draw(random, 2)) {
				dt_copies_take_back(&snapshot, changes, taken);
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

static struct dt_changes *diff_of(struct dt_history *history, uint64_t from, uint64_t to, uint64_t gap)
{
	const struct dt_comparing how = {.gap = gap, .limit = UINT64_MAX};
	struct dt_changes *changes = dt_changes_new(sizeof *changes);
	check(changes && dt_history_diff(history, from, to, changes, &how) == 0 && changes->error == 0);
	return changes;
}

// Whether a list leads from one state to another.
static bool leads_to(const struct dt_changes *changes, uint8_t **from, uint8_t **to)
{
	bool leads = true;
	for (int i = 0; i < REGIONS; i++) {
		uint64_t nbytes = extents[i].nbytes;
		uint8_t *moved = malloc(nbytes);
		check(moved);
		memcpy(moved, from[i], nbytes);
		for (size_t k = 0; k < changes->change_count; k++) {
			const struct dt_change *change = &changes->changes[k];
			uint64_t length = change->stop - change->start;
			if (change->region != (uint64_t)i)
				continue;
			leads &= memcmp(moved + change->start, changes->before + change->at, length) == 0;
			memcpy(moved + change->start, changes->after + change->at, length);
		}
		leads &= memcmp(moved, to[i], nbytes) == 0;
		free(moved);
	}
	return leads;
}

// From one state over another to a third is the same as from the first to the third.
static void try_diffs_of_states(struct dt_history *history, uint8_t *(*states)[REGIONS], uint64_t *random)
{
	uint64_t a = 1 + draw(random, STATES), b = 1 + draw(random, STATES), c = 1 + draw(random, STATES);
	if (!dt_history_has(history, a) || !dt_history_has(history, b) || !dt_history_has(history, c))
		return;
	struct dt_changes *first = diff_of(history, a, b, draw(random, 3) * 3000);
	struct dt_changes *second = diff_of(history, b, c, draw(random, 2) * 9);
	struct dt_changes *whole = diff_of(history, a, c, 0), *merged = dt_changes_new(sizeof *merged);
	check(merged && leads_to(first, states[a], states[b]) && leads_to(whole, states[a], states[c]));
	struct dt_diff one = {first->changes, first->change_count, first->before, first->after, 0};
	struct dt_diff two = {second->changes, second->change_count, second->before, second->after, 0};
	struct dt_conflict conflict;
	check(dt_merge(merged, &one, &two, &conflict) == 0);
	check(merged->change_count == whole->change_count && merged->bytes == whole->bytes);
	for (size_t i = 0; i < whole->change_count; i++)
		check(memcmp(&merged->changes[i], &whole->changes[i], sizeof *whole->changes) == 0);
	check(leads_to(merged, states[a], states[c]));
	if (first->change_count)
		check(dt_merge(merged, &one, &one, &conflict) == 1 && conflict.left != conflict.found);
	dt_changes_free(first);
	dt_changes_free(second);
	dt_changes_free(whole);
	dt_changes_free(merged);
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
		try_diffs_of_states(history, states, random);
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
	check(dt_history_diff(history, STATES + 1, 1, NULL, NULL) == -EINVAL);
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
