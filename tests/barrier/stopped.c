// Threads that are stopped, cancelled or interrupted inside of every function, while another one calls every function.
// One argument says which, a second one for how many seconds at least; see test_stopped.py.
#define _GNU_SOURCE
#include <dirtytrack.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define check(condition)                                                                     \
	do {                                                                                 \
		if (!(condition)) {                                                          \
			fprintf(stderr, "stopped.c:%d: not so: %s\n", __LINE__, #condition); \
			_exit(1);                                                            \
		}                                                                            \
	} while (0)

enum { PAGES = 64, EACH = 4, LEAST_HITS = 5, MOST_PAUSES = 200000, MOST_SECONDS = 240 };

static size_t page;
static char *heap;
static struct dt_tracker *shared; // of all threads, as the next one
static struct dt_snapshot *snapshot;
static unsigned least_seconds;

static char *map(size_t pages)
{
	char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED);
	return memory;
}

// What a thread has of its own, so that calls of several threads can be checked.
struct place {
	struct dt_tracker *opened;
	char *memory; // EACH pages, and as many behind them for snapshots
};

static void do_take(struct place *place)
{
	uint8_t out[4096];
	(void)place;
	int error = dt_tracker_take(shared, out, dt_tracker_map_bytes(shared), NULL);
	check(error == 0 || error == -DT_ESIZE); // somebody added a range between the two
}

static void do_peek(struct place *place)
{
	uint8_t out[4096];
	(void)place;
	int error = dt_tracker_peek(shared, out, dt_tracker_map_bytes(shared), NULL);
	check(error == 0 || error == -DT_ESIZE);
}

static void do_mark(struct place *place)
{
	(void)place;
	check(dt_tracker_mark(shared, heap + 3 * page + 1, 5 * page) == 0);
}

static void do_add(struct place *place)
{
	int error = dt_tracker_add(shared, place->memory, EACH * page, DT_DENSE, NULL);
	check(error == 0 || error == -DT_EOVERLAP || error == -EBUSY);
}

static void do_remove(struct place *place)
{
	int error = dt_tracker_remove(shared, place->memory, EACH * page);
	check(error == 0 || error == -DT_EUNTRACKED);
}

// In the middle, and then the rest.
static void do_cut(struct place *place)
{
	int error = dt_tracker_remove(shared, place->memory + page, 2 * page);
	check(error == 0 || error == -DT_EUNTRACKED);
}

static void clear(struct place *place)
{
	for (size_t i = 0; i < EACH; i++) {
		int error = dt_tracker_remove(shared, place->memory + i * page, page);
		check(error == 0 || error == -DT_EUNTRACKED);
	}
}

static void do_replace(struct place *place)
{
	(void)place;
	check(dt_tracker_replace(shared, heap + 20 * page, 3 * page) == 0);
}

static void do_part(struct place *place)
{
	uint8_t out[2];
	uint64_t dirty;
	(void)place;
	check(dt_tracker_take_range(shared, heap + 4 * page, 9 * page, out, 2, &dirty) == 0 && dirty <= 9);
	check(dt_tracker_peek_range(shared, heap, 16 * page, out, 2, &dirty) == 0 && dirty <= 16);
}

static void do_list(struct place *place)
{
	struct dt_range ranges[4];
	void *addresses[4];
	size_t n = 4, granularity;
	(void)place;
	check(dt_tracker_runs(shared, DT_LIST_TAKE, heap, 30 * page, ranges, 4) >= 0);
	check(dt_tracker_ranges(shared, ranges, 4) >= 1);
	check(dt_write_watch(shared, DT_LIST_TAKE, heap, 50 * page, addresses, &n, &granularity) == 0 && n <= 4);
	check(dt_reset_write_watch(shared, heap, page) == 0);
}

static void do_prepare(struct place *place)
{
	(void)place;
	check(dt_tracker_prepare(shared) == 0);
}

static int ignore(void *context, void *start, size_t bytes, const void *before, const void *after)
{
	return context == NULL && start && bytes && before && after ? 0 : 9;
}

static void do_reset(struct place *place)
{
	size_t pages;
	(void)place;
	check(dt_snapshot_rollback(snapshot, &pages) == 0 && dt_snapshot_advance(snapshot, &pages) == 0);
	check(dt_snapshot_diff(snapshot, DT_LIST_TAKE, ignore, NULL) == 0);
}

static void do_snapshot(struct place *place)
{
	struct dt_snapshot *own;
	check(dt_snapshot_open(&own) == 0);
	check(dt_snapshot_add(own, place->memory + EACH * page + 5, 2 * page, DT_DENSE) == 0);
	dt_snapshot_close(own);
}

static void do_share(struct place *place)
{
	struct dt_tracker *second;
	uint8_t out[2];
	(void)place;
	check(dt_tracker_open_shared(shared, page, DT_BITS, &second) == 0);
	check(dt_tracker_add(second, heap, 9 * page, DT_DENSE, NULL) == 0);
	check(dt_tracker_peek(second, out, 2, NULL) == 0);
	dt_tracker_close(second);
}

static void do_open(struct place *place)
{
	if (!place->opened)
		check(dt_tracker_open(page, DT_BITS, &place->opened) == 0);
}

static void do_close(struct place *place)
{
	struct dt_tracker *tracker = place->opened;
	place->opened = NULL; // before it, as a handler may come in the middle
	dt_tracker_close(tracker);
}

static void do_ask(struct place *place)
{
	struct dt_range range;
	(void)place;
	check(dt_tracker_cards(shared) >= PAGES && dt_tracker_lost(shared, &range, 1) == 0);
}

static void do_fork(struct place *place)
{
	int status;
	pid_t child = fork();
	(void)place;
	check(child >= 0);
	if (!child) {
		check(dt_tracker_mark(shared, heap, 1) == -DT_EFORKED);
		dt_tracker_close(shared);
		_exit(0);
	}
	while (waitpid(child, &status, 0) < 0)
		check(errno == EINTR);
	check(status == 0);
}

typedef void act(struct place *place);
static act *const acts[] = {do_take,    do_peek, do_mark,  do_add,     do_remove, do_cut,
			    do_replace, do_part, do_list,  do_prepare, do_reset,  do_snapshot,
			    do_share,   do_open, do_close, do_ask,     do_fork};
enum { ACTS = sizeof acts / sizeof *acts };
enum { ANY_TIME = ACTS - 1 }; // all but the fork, which others that are stopped in malloc may hold up

static void act_all(struct place *place)
{
	for (size_t i = 0; i < ANY_TIME; i++)
		acts[i](place);
	do_close(place);
	clear(place);
}

// Each thread does one thing and what undoes it, again and again.

struct mutator {
	pthread_t thread;
	struct place place;
	size_t what;
	atomic_bool inside; // of the function
	atomic_ulong hits;  // stops inside
};

static struct mutator mutators[ACTS];
static _Thread_local struct mutator *me;
static atomic_bool over;
static atomic_uint pause_number, arrived;

static void wait_while(atomic_uint *word, unsigned value)
{
	while (*word == value)
		syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void wake(atomic_uint *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void stop(int number)
{
	int error = errno;
	unsigned now = pause_number;
	(void)number;
	if (me) {
		me->hits += me->inside;
		arrived++;
		wake(&arrived);
		wait_while(&pause_number, now);
	}
	errno = error;
}

static void turn(struct mutator *mutator)
{
	struct place *place = &mutator->place;
	act *const function = acts[mutator->what];
	if (function == do_remove || function == do_cut)
		do_add(place);
	if (function == do_close)
		do_open(place);
	mutator->inside = true;
	function(place);
	mutator->inside = false;
	if (function == do_add || function == do_cut)
		clear(place);
	if (function == do_open)
		do_close(place);
}

static void *mutate(void *argument)
{
	me = argument;
	arrived++; // from here on it stops
	wake(&arrived);
	while (!over)
		turn(me);
	return NULL;
}

static void begin(void)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	heap = map(PAGES);
	check(dt_tracker_open(page, DT_BITS | DT_KEEP_HUGE_PAGES, &shared) == 0);
	check(dt_tracker_add(shared, heap, PAGES * page, DT_DENSE, NULL) == 0);
	check(dt_snapshot_open(&snapshot) == 0 && dt_snapshot_add(snapshot, map(EACH), EACH * page, DT_DENSE) == 0);
	for (size_t i = 0; i < ACTS; i++)
		mutators[i] = (struct mutator){.what = i, .place.memory = map(2 * EACH)};
	alarm(MOST_SECONDS + least_seconds); // a deadlock
}

static void finish(void)
{
	uint8_t out[4096];
	uint64_t dirty;
	for (size_t i = 0; i < ACTS; i++) {
		do_close(&mutators[i].place);
		clear(&mutators[i].place);
	}
	check(dt_tracker_take(shared, out, dt_tracker_map_bytes(shared), NULL) == 0);
	heap[0] = 1;
	check(dt_tracker_mark(shared, heap + 9 * page, 1) == 0);
	check(dt_tracker_take(shared, out, dt_tracker_map_bytes(shared), &dirty) == 0 && dirty == 2);
	dt_tracker_close(shared);
	dt_snapshot_close(snapshot);
	int fd = dup(0);
	check(fd < 10); // nobody left a descriptor
}

static void wait_for_all(void)
{
	for (unsigned seen; (seen = arrived) < ACTS;)
		wait_while(&arrived, seen);
	arrived = 0;
}

static bool enough(void)
{
	for (size_t i = 0; i < ACTS; i++)
		if (mutators[i].hits < LEAST_HITS)
			return false;
	return true;
}

static void pauses(void)
{
	begin();
	struct place place = {.memory = map(2 * EACH)};
	signal(SIGUSR1, stop);
	for (size_t i = 0; i < ACTS; i++)
		check(pthread_create(&mutators[i].thread, NULL, mutate, &mutators[i]) == 0);
	wait_for_all();
	time_t end = time(NULL) + least_seconds;
	long pause;
	for (pause = 0; pause < 300 || (pause < MOST_PAUSES && !enough()) || time(NULL) < end; pause++) {
		for (size_t i = 0; i < ACTS; i++)
			check(pthread_kill(mutators[i].thread, SIGUSR1) == 0);
		wait_for_all();
		act_all(&place);
		pause_number++;
		wake(&pause_number);
		for (int i = (int)(pause % 5); i; i--)
			sched_yield();
	}
	check(enough());
	over = true;
	unsigned long hits = 0;
	for (size_t i = 0; i < ACTS; i++) {
		check(pthread_join(mutators[i].thread, NULL) == 0);
		hits += mutators[i].hits;
	}
	finish();
	if (least_seconds)
		printf("%ld pauses, %lu threads stopped inside of a function\n", pause, hits);
}

// A thread is cancelled in the middle; what it may have open is known, so that anything else is a leak.

static void *be_cancelled(void *argument)
{
	me = argument;
	act *const function = acts[me->what];
	for (;;) {
		turn(me);
		bool is_look = function == do_take || function == do_peek || function == do_part || function == do_list;
		if (!is_look) // which are cancellation points themselves
			pthread_testcancel();
	}
	return NULL;
}

static void *take_when_cancelled(void *map)
{
	pthread_cancel(pthread_self());
	dt_tracker_take(shared, map, dt_tracker_map_bytes(shared), NULL);
	return map;
}

static void cancelled_before(void)
{
	uint8_t out[4096];
	pthread_t thread;
	void *result;
	uint64_t dirty;
	check(dt_tracker_take(shared, out, dt_tracker_map_bytes(shared), NULL) == 0);
	heap[7 * page] = 1;
	out[0] = 0x55;
	check(pthread_create(&thread, NULL, take_when_cancelled, out) == 0);
	check(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED && out[0] == 0x55);
	check(dt_tracker_take(shared, out, dt_tracker_map_bytes(shared), &dirty) == 0 && dirty == 1 && out[0] == 0x80);
}

static void cancellations(void)
{
	begin();
	struct place place = {.memory = map(2 * EACH)};
	for (long round = 0; round < 60; round++) {
		for (size_t i = 0; i < ANY_TIME; i++)
			check(pthread_create(&mutators[i].thread, NULL, be_cancelled, &mutators[i]) == 0);
		for (long i = round; i; i--)
			sched_yield();
		for (size_t i = 0; i < ANY_TIME; i++)
			check(pthread_cancel(mutators[i].thread) == 0);
		for (size_t i = 0; i < ANY_TIME; i++)
			check(pthread_join(mutators[i].thread, NULL) == 0);
		act_all(&place);
	}
	cancelled_before();
	finish();
}

// A handler calls every function in the middle of every function of the same thread.

static struct place handlers_place;
static atomic_ulong handled;

static void handle(int number)
{
	int error = errno;
	(void)number;
	mutators[0].hits += mutators[0].inside;
	act_all(&handlers_place);
	handled++;
	errno = error;
}

static void handlers(void)
{
	begin();
	handlers_place.memory = map(2 * EACH);
	me = &mutators[0];
	signal(SIGVTALRM, handle);
	for (size_t what = 0; what < ANY_TIME; what++) {
		me->what = what;
		me->hits = 0;
		unsigned delay = 1;
		while (me->hits < LEAST_HITS) {
			struct itimerval soon = {.it_value.tv_usec = 1 + delay++ % 200};
			unsigned long before = handled;
			check(setitimer(ITIMER_VIRTUAL, &soon, NULL) == 0);
			while (handled == before)
				turn(me);
		}
	}
	finish();
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	least_seconds = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
	if (!strcmp(what, "pauses"))
		pauses();
	else if (!strcmp(what, "cancellations"))
		cancellations();
	else if (!strcmp(what, "handlers"))
		handlers();
	else
		return 2;
	puts("all so");
	return 0;
}
