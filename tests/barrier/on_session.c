// A collector in C on a Session of Python's, built from dirtytrack's header and sources alone: what it does is said by
// test_c_api.py, which loads it.
#define _GNU_SOURCE
#include <dirtytrack.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 16 };

// Threads that a collector stops: each says so itself, wherever it comes from.
static pthread_t threads[MOST_THREADS];
static atomic_uint thread_count, stop_number, arrived, leaving;

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
	unsigned now = stop_number;
	(void)number;
	arrived++;
	wake(&arrived);
	wait_while(&stop_number, now);
	leaving--;
}

void on_session_may_be_stopped(void)
{
	static atomic_flag taken = ATOMIC_FLAG_INIT;
	while (atomic_flag_test_and_set(&taken))
		;
	threads[thread_count] = pthread_self();
	thread_count++;
	atomic_flag_clear(&taken);
}

// Takes, again and again, while those threads are stopped, at instants that nobody chooses. The error of the first take
// that fails.
int on_session_stop_and_take(struct dt_tracker *tracker, void *map, size_t bytes, int rounds)
{
	int error = 0;
	signal(SIGUSR2, stop);
	for (int round = 0; round < rounds && !error; round++) {
		unsigned count = thread_count;
		struct timespec pause = {0, round % 50 * 1000};
		arrived = 0;
		leaving = count;
		for (unsigned i = 0; i < count; i++)
			pthread_kill(threads[i], SIGUSR2);
		for (unsigned seen; (seen = arrived) < count;)
			wait_while(&arrived, seen);
		error = dt_tracker_take(tracker, map, bytes, NULL);
		stop_number++;
		wake(&stop_number);
		while (leaving)
			nanosleep(&pause, NULL);
		nanosleep(&pause, NULL);
	}
	return error;
}
