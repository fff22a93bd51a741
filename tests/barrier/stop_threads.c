// A runtime whose tracker stops the other threads for each scan. Prints "all so".
#define _GNU_SOURCE
#include <dirtytrack.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define check(condition)                                                                          \
	do {                                                                                      \
		if (!(condition)) {                                                               \
			fprintf(stderr, "stop_threads.c:%d: not so: %s\n", __LINE__, #condition); \
			_exit(1);                                                                 \
		}                                                                                 \
	} while (0)

enum { PAGES = 64, TRACKERS = 3, TAKES = 200 };

#define PATIENT_NS 30000000000ULL // every thread stops in that time, however busy the machine is

static size_t page;

static char *map(size_t pages)
{
	char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED);
	return memory;
}

static struct dt_tracker *open_on(char *heap)
{
	struct dt_tracker *tracker;
	check(dt_tracker_open(page, DT_STOP_THREADS, &tracker) == 0);
	check(dt_tracker_stop_threads(tracker, SIGURG, PATIENT_NS) == 0);
	check(dt_tracker_add(tracker, heap, PAGES * page, DT_DENSE, NULL) == 0);
	return tracker;
}

static bool is_set(const uint8_t *cards, int card)
{
	return cards[card / 8] >> card % 8 & 1;
}

static bool is_one_stretch(const uint8_t *cards)
{
	int ends = 0;
	for (int card = 0; card < PAGES; card++)
		ends += is_set(cards, card) && !is_set(cards, (card + 1) % PAGES);
	return ends <= 1;
}

static bool is_over;

static void *write_in_turn(void *heap)
{
	for (uint64_t i = 0; !__atomic_load_n(&is_over, __ATOMIC_RELAXED); i++) {
		*(volatile uint64_t *)((char *)heap + i % PAGES * page) = i;
		for (volatile int wait = 0; wait < 200; wait++)
			;
	}
	return NULL;
}

// What a take and a peek find is of one instant.
static void try_instants(void)
{
	char *heap = map(PAGES);
	struct dt_tracker *tracker = open_on(heap);
	uint8_t cards[PAGES / 8];
	pthread_t writer;
	check(pthread_create(&writer, NULL, write_in_turn, heap) == 0);
	for (int i = 0; i < TAKES; i++) {
		check((i % 4 ? dt_tracker_take : dt_tracker_peek)(tracker, cards, sizeof cards, NULL) == 0);
		check(dt_tracker_unstopped(tracker, NULL, 0) == 0);
		check(is_one_stretch(cards));
	}
	__atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	dt_tracker_close(tracker);
}

static void *take_own(void *heap)
{
	struct dt_tracker *tracker = open_on(heap);
	uint8_t cards[PAGES / 8];
	uint64_t dirty;
	for (int i = 0; i < TAKES; i++) {
		((volatile char *)heap)[(size_t)(i % PAGES) * page]++;
		check(dt_tracker_take(tracker, cards, sizeof cards, &dirty) == 0);
		check(dt_tracker_unstopped(tracker, NULL, 0) == 0);
		check(dirty == 1 && is_set(cards, i % PAGES));
	}
	dt_tracker_close(tracker);
	return NULL;
}

// Threads whose signals are blocked while they take: each waits for its turn, and counts as stopped.
static void try_trackers(void)
{
	pthread_t threads[TRACKERS];
	for (int i = 0; i < TRACKERS; i++)
		check(pthread_create(&threads[i], NULL, take_own, map(PAGES)) == 0);
	for (int i = 0; i < TRACKERS; i++)
		pthread_join(threads[i], NULL);
}

static struct dt_tracker *common;
static char *common_heap;

static void *take_in_turn(void *number)
{
	uint8_t cards[PAGES / 8];
	volatile char *own = common_heap + (size_t)(uintptr_t)number * page;
	for (int i = 0; i < TAKES; i++) {
		++*own;
		check(dt_tracker_take(common, cards, sizeof cards, NULL) == 0);
		check(dt_tracker_unstopped(common, NULL, 0) == 0);
	}
	return NULL;
}

// Threads that wait for one tracker, whose signals are blocked meanwhile: each counts as stopped.
static void try_queue(void)
{
	pthread_t threads[TRACKERS];
	common_heap = map(PAGES);
	common = open_on(common_heap);
	for (int i = 0; i < TRACKERS; i++)
		check(pthread_create(&threads[i], NULL, take_in_turn, (void *)(uintptr_t)i) == 0);
	for (int i = 0; i < TRACKERS; i++)
		pthread_join(threads[i], NULL);
	dt_tracker_close(common);
}

static int32_t blocked;

static void *block(void *ends)
{
	sigset_t all;
	char byte;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	__atomic_store_n(&blocked, (int32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	check(read(*(int *)ends, &byte, 1) == 1);
	return NULL;
}

// It is told which thread was not stopped, and a scan that is made nevertheless finds everything.
static void try_unstopped(void)
{
	char *heap = map(PAGES);
	struct dt_tracker *tracker = open_on(heap);
	int ends[2];
	uint8_t cards[PAGES / 8];
	int32_t threads[2] = {0};
	uint64_t dirty;
	pthread_t thread;
	check(pipe(ends) == 0 && pthread_create(&thread, NULL, block, ends) == 0);
	while (!__atomic_load_n(&blocked, __ATOMIC_ACQUIRE))
		sched_yield();
	check(dt_tracker_stop_threads(tracker, SIGURG, 10000000) == 0);
	for (int i = 0; i < 3; i++) {
		heap[3 * page]++;
		check(dt_tracker_take(tracker, cards, sizeof cards, &dirty) == 0);
		check(dirty == 1 && is_set(cards, 3));
		check(dt_tracker_unstopped(tracker, threads, 2) == 1 && threads[0] == blocked);
		check(dt_tracker_unstopped(tracker, NULL, 0) == 1);
	}
	check(write(ends[1], "", 1) == 1);
	pthread_join(thread, NULL);
	check(dt_tracker_take(tracker, cards, sizeof cards, &dirty) == 0 && dirty == 0);
	check(dt_tracker_unstopped(tracker, threads, 2) == 0);
	dt_tracker_close(tracker);
}

static void handle(int signal)
{
	(void)signal;
}

static void try_refusals(void)
{
	char *heap = map(PAGES);
	struct dt_tracker *tracker, *other;
	uint8_t cards[PAGES / 8];
	uint64_t dirty;
	check(dt_tracker_open(page, DT_KEEP_HUGE_PAGES << 1, &tracker) == -EINVAL);
	signal(SIGURG, handle);
	check(dt_tracker_open(page, DT_STOP_THREADS, &tracker) == -EBUSY);
	signal(SIGURG, SIG_DFL);
	tracker = open_on(heap);
	int unfit[] = {0, -1, 65, SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGCHLD};
	for (size_t i = 0; i < sizeof unfit / sizeof *unfit; i++)
		check(dt_tracker_stop_threads(tracker, unfit[i], 1) == -EINVAL);
	check(dt_tracker_stop_threads(tracker, SIGURG, 0) == -EINVAL);
	signal(SIGUSR1, handle);
	check(dt_tracker_stop_threads(tracker, SIGUSR1, PATIENT_NS) == -EBUSY);
	check(dt_tracker_open(page, DT_BYTES | DT_STOP_THREADS, &other) == 0); // the signal is shared
	dt_tracker_close(other);

	heap[0] = 1;
	signal(SIGURG, handle);
	check(dt_tracker_take(tracker, cards, sizeof cards, &dirty) == -EBUSY);
	for (int card = 0; card < PAGES; card++)
		check(is_set(cards, card));
	signal(SIGURG, SIG_DFL);
	check(dt_tracker_take(tracker, cards, sizeof cards, &dirty) == 0 && dirty == 1 && is_set(cards, 0));

	pid_t child = fork();
	if (child == 0) {
		check(dt_tracker_take(tracker, cards, sizeof cards, &dirty) == -DT_EFORKED);
		check(dt_tracker_unstopped(tracker, NULL, 0) == -DT_EFORKED);
		check(dt_tracker_stop_threads(tracker, SIGURG, 1) == -DT_EFORKED);
		dt_tracker_close(tracker);
		take_own(map(PAGES));
		_exit(0);
	}
	int status;
	check(waitpid(child, &status, 0) == child && status == 0);
	dt_tracker_close(tracker);
	struct sigaction now;
	check(sigaction(SIGURG, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
}

int main(void)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	try_refusals();
	try_instants();
	try_trackers();
	try_queue();
	try_unstopped();
	puts("all so");
	return 0;
}
