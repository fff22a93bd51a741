// Many threads on one session, each of which knows exactly what it must be told of the memory that only it writes.
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "driver.h"

static bool stop_visitors;

// A thread that owns a piece of the memory, a region of it and a cursor: nobody else writes there.
struct owner {
	pthread_t thread;
	uint64_t random, region, cursor;
	uint64_t first; // page of the memory
	bool due[PIECE];
};

static void dirty(struct owner *self)
{
	for (uint64_t i = draw(&self->random, 12); i; i--) {
		uint64_t page = draw(&self->random, PIECE), what = draw(&self->random, 8);
		char *address = memory + (self->first + page) * page_size;
		if (what == 0)
			check(madvise(address, page_size, MADV_DONTNEED) == 0);
		else if (what == 1)
			check(dt_session_mark(session, self->region, page, page + 1) == 0);
		else
			address[draw(&self->random, page_size)]++;
		self->due[page] = true;
	}
}

// One verb on a slice of the region, which must give exactly the pages that are due there.
static void look(struct owner *self)
{
	uint64_t start = draw(&self->random, 2) ? 0 : draw(&self->random, PIECE);
	uint64_t stop = start ? start + 1 + draw(&self->random, PIECE - start) : PIECE;
	int verb = draw(&self->random, 4) ? DT_COLLECT : (int)draw(&self->random, 3);
	struct dt_slice slice = {self->region, start, stop};
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch);
	check(dt_collect(session, self->cursor, verb, &slice, 1, epoch) == 0);
	check(epoch->entry_count == (verb != DT_RESET));

	bool found[PIECE] = {0};
	for (uint64_t i = 0; i < epoch->run_count; i++)
		for (uint64_t page = epoch->buffers.runs[i].start; page < epoch->buffers.runs[i].stop; page++)
			found[page] = true;
	for (uint64_t page = start; page < stop && verb != DT_RESET; page++)
		check(found[page] == self->due[page]);

	uint64_t fate = draw(&self->random, 4); // kept, aborted, or released with nobody having read it
	if (fate == 0)
		check(dt_epoch_abort(epoch) == 0);
	else if (fate != 1)
		epoch->settled = 1;
	if (verb == DT_RESET || (verb == DT_COLLECT && fate > 1))
		memset(self->due + start, 0, stop - start);
	dt_epoch_release(epoch);
}

static void *own(void *argument)
{
	struct owner *self = argument;
	for (int round = 0; round < 300; round++) {
		dirty(self);
		look(self);
	}
	return NULL;
}

// Threads that come and go: overlapping regions, cursors of their own, and everybody's pages collected.
static void *visit(void *argument)
{
	uint64_t random = (uintptr_t)argument, cursor;
	while (!__atomic_load_n(&stop_visitors, __ATOMIC_RELAXED)) {
		uint64_t first = draw(&random, PAGES), region = add(first, first + 1 + draw(&random, PAGES - first));
		check(dt_cursor_open(session, &cursor) == 0);
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		check(epoch);
		int error = dt_collect_all(session, cursor, DT_COLLECT, dt_session_generation(session), epoch);
		check(error == 0 || error == -DT_ESTALE);
		check(dt_cursor_close(session, cursor) == 0);
		check(dt_session_is_lost(session, region) == 0);
		check(dt_session_remove(session, region) == 0);
		dt_epoch_release(epoch); // it has nobody to go back to
	}
	return NULL;
}

void try_threads(enum dt_hole_reporting holes, uint64_t *random)
{
	struct owner owners[THREADS] = {0};
	pthread_t visitors[2];
	session = open_tracker(holes);
	__atomic_store_n(&stop_visitors, false, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++) {
		owners[i].first = (uint64_t)i * PIECE;
		owners[i].random = draw(random, 1 << 30) + 1;
		owners[i].region = add(owners[i].first, owners[i].first + PIECE);
		check(dt_cursor_open(session, &owners[i].cursor) == 0);
	}
	for (int i = 0; i < THREADS; i++)
		check(pthread_create(&owners[i].thread, NULL, own, &owners[i]) == 0);
	for (uintptr_t i = 0; i < 2; i++)
		check(pthread_create(&visitors[i], NULL, visit, (void *)(i + 7)) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(owners[i].thread, NULL);
	__atomic_store_n(&stop_visitors, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(visitors[i], NULL);
	dt_session_release(session);
}

// Closing while others use the session, and one epoch in the hands of two threads

static void *use_until_closed(void *argument)
{
	struct dt_epoch *shared = argument;
	uint64_t cursor;
	int error;
	while ((error = dt_cursor_open(session, &cursor)) == 0 && (error = dt_cursor_close(session, cursor)) == 0)
		dt_epoch_abort(shared);
	check(error == -DT_ECLOSED);
	check(dt_session_usable(session) == -DT_ECLOSED);
	return NULL;
}

void try_closing(void)
{
	pthread_t users[2];
	session = open_tracker(DT_HOLES_REPORTED);
	struct dt_slice slice = {add(0, PAGES), 0, PAGES};
	uint64_t cursor;
	check(dt_cursor_open(session, &cursor) == 0);
	memory[0]++;
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch);
	check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, epoch) == 0);
	check(epoch->pages == 1);
	for (int i = 0; i < 2; i++)
		check(pthread_create(&users[i], NULL, use_until_closed, epoch) == 0);
	usleep(2000); // let them be in the middle of it
	dt_session_close(session);
	for (int i = 0; i < 2; i++)
		pthread_join(users[i], NULL);
	dt_epoch_release(epoch);
	dt_session_release(session);
}

void try_fork(void)
{
	session = open_tracker(DT_HOLES_REPORTED);
	struct dt_slice slice = {add(0, PAGES), 0, PAGES};
	uint64_t cursor;
	check(dt_cursor_open(session, &cursor) == 0);
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch), *other = dt_epoch_new(sizeof *other);
	check(epoch && other);
	memory[page_size]++;
	check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, epoch) == 0);
	pid_t child = fork();
	if (child == 0) {
		check(dt_session_usable(session) == -DT_EFORKED);
		check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, other) == -DT_EFORKED);
		check(dt_epoch_abort(epoch) == -DT_EFORKED);
		dt_epoch_release(epoch);
		dt_epoch_release(other);
		dt_session_release(session);
		_exit(0);
	}
	int status;
	check(waitpid(child, &status, 0) == child);
	check(status == 0);
	dt_epoch_release(epoch); // gives its page back: the child's release has not
	check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, other) == 0);
	check(other->pages == 1);
	dt_epoch_release(other);
	dt_session_release(session);
}
