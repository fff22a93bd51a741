// Stopping threads: all of them stand still, and who does not is told.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "base/stop.h"
#include "base/stopped.h"
#include "driver.h"

#define PATIENT_NS 60000000000ULL // every thread stops in that time, however busy the machine is

enum { RUNNERS = 4, STOPS = 100 };

// A thread that counts, and does what it is told.
struct runner {
	pthread_t thread;
	int32_t id;
	uint64_t count; // atomic, as the next ones
	bool is_own, blocks, is_ended;
};

static size_t strangers; // threads of a sanitizer's runtime, which block all signals

static bool has(const struct dt_threads *unstopped, const struct runner *runner)
{
	int32_t id = __atomic_load_n(&runner->id, __ATOMIC_SEQ_CST);
	size_t i = 0;
	while (i < unstopped->count && unstopped->ids[i] != id)
		i++;
	return i < unstopped->count && unstopped->count == strangers + 1;
}

static uint64_t count_of(const struct runner *runner)
{
	return __atomic_load_n(&runner->count, __ATOMIC_SEQ_CST);
}

static bool is(const bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

static void *run_on(void *argument)
{
	struct runner *self = argument;
	const struct timespec while_ = {0, 20000};
	sigset_t stop;
	sigemptyset(&stop);
	sigaddset(&stop, SIGURG);
	if (self->is_own)
		check(dt_own_thread() == 0);
	while (!is(&self->is_ended)) {
		pthread_sigmask(is(&self->blocks) ? SIG_BLOCK : SIG_UNBLOCK, &stop, NULL);
		__atomic_store_n(&self->id, (int32_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&self->count, 1, __ATOMIC_SEQ_CST);
		nanosleep(&while_, NULL);
	}
	return NULL;
}

static void wait_for_steps(const struct runner *runner)
{
	for (uint64_t goal = count_of(runner) + 2; count_of(runner) < goal;)
		sched_yield();
}

static void begin(struct runner *runner)
{
	check(pthread_create(&runner->thread, NULL, run_on, runner) == 0);
	wait_for_steps(runner);
}

static void end(struct runner *runner)
{
	__atomic_store_n(&runner->is_ended, true, __ATOMIC_SEQ_CST);
	pthread_join(runner->thread, NULL);
}

static struct dt_stopping open_stopping(uint64_t limit_ns)
{
	struct dt_stopping stopping;
	check(dt_stopping_open(&stopping, SIGURG, limit_ns, -1) == 0);
	return stopping;
}

// All stand still but for the library's own.
static void try_standing_still(void)
{
	struct dt_stopping stopping = open_stopping(PATIENT_NS);
	struct runner runners[RUNNERS] = {0};
	struct dt_threads unstopped = {0};
	runners[0].is_own = true;
	for (int i = 0; i < RUNNERS; i++)
		begin(&runners[i]);
	for (int round = 0; round < STOPS; round++) {
		uint64_t counts[RUNNERS];
		struct dt_stop stop;
		check(dt_stop_begin(&stopping, &stop) == 0);
		for (int i = 1; i < RUNNERS; i++)
			counts[i] = count_of(&runners[i]);
		wait_for_steps(&runners[0]);
		for (int i = 1; i < RUNNERS; i++)
			check(count_of(&runners[i]) == counts[i]);
		check(dt_stop_end(&stop, &unstopped) == 0 && unstopped.count == strangers);
	}
	for (int i = 0; i < RUNNERS; i++)
		end(&runners[i]);
	dt_free_threads(&unstopped);
	dt_stopping_close(&stopping);
}

static void one_stop(const struct dt_stopping *stopping, struct dt_threads *unstopped)
{
	struct dt_stop stop;
	check(dt_stop_begin(stopping, &stop) == 0);
	check(dt_stop_end(&stop, unstopped) == 0);
}

// One that answers when it is late is told of, and is waited for the next time.
static void try_late_answers(void)
{
	struct dt_stopping hasty = open_stopping(10000000), patient = open_stopping(PATIENT_NS);
	struct runner runner = {.blocks = true};
	struct dt_threads unstopped = {0};
	struct dt_stop stop;
	begin(&runner);
	one_stop(&hasty, &unstopped);
	check(has(&unstopped, &runner));
	one_stop(&patient, &unstopped); // it is remembered: nobody waits
	check(has(&unstopped, &runner));

	check(dt_stop_begin(&hasty, &stop) == 0);
	__atomic_store_n(&runner.blocks, false, __ATOMIC_SEQ_CST);
	for (uint64_t last = 0, since = dt_now(); dt_now() < since + 20000000;) { // until it stands still
		if (count_of(&runner) != last)
			since = dt_now();
		last = count_of(&runner);
	}
	check(dt_stop_end(&stop, &unstopped) == 0);
	check(has(&unstopped, &runner));
	wait_for_steps(&runner);
	one_stop(&patient, &unstopped);
	check(unstopped.count == strangers);
	end(&runner);
	dt_free_threads(&unstopped);
	dt_stopping_close(&hasty);
	dt_stopping_close(&patient);
}

// A stop that is too long goes on without those that it stopped.
static void try_a_long_stop(void)
{
	struct dt_stopping stopping = open_stopping(500000000);
	struct runner runner = {0};
	struct dt_threads unstopped = {0};
	struct dt_stop stop;
	begin(&runner);
	check(dt_stop_begin(&stopping, &stop) == 0);
	wait_for_steps(&runner);
	check(dt_stop_end(&stop, &unstopped) == 0);
	check(has(&unstopped, &runner));
	end(&runner);
	dt_free_threads(&unstopped);
	dt_stopping_close(&stopping);
}

static void *stop_others(void *argument)
{
	struct dt_stopping stopping = open_stopping(PATIENT_NS);
	struct dt_threads unstopped = {0};
	for (int i = 0; i < STOPS; i++) {
		one_stop(&stopping, &unstopped);
		check(unstopped.count == strangers);
	}
	dt_free_threads(&unstopped);
	dt_stopping_close(&stopping);
	return argument;
}

// Each waits for its turn, and counts as stopped meanwhile.
static void try_many_stoppers(void)
{
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		check(pthread_create(&threads[i], NULL, stop_others, NULL) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void handle_otherwise(int signal)
{
	(void)signal;
}

static void try_other_handlers(void)
{
	struct dt_stopping stopping, refused;
	struct dt_threads unstopped = {0};
	struct sigaction now;
	struct dt_stop stop;
	signal(SIGURG, handle_otherwise);
	check(dt_stopping_open(&stopping, SIGURG, 1, -1) == -EBUSY);
	signal(SIGURG, SIG_IGN);
	stopping = open_stopping(PATIENT_NS);
	signal(SIGURG, handle_otherwise);
	check(dt_stop_begin(&stopping, &stop) == -EBUSY);
	check(dt_stopping_open(&refused, SIGURG, 1, -1) == -EBUSY);
	signal(SIGURG, SIG_DFL);
	one_stop(&stopping, &unstopped);
	dt_stopping_close(&stopping);
	check(sigaction(SIGURG, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
	check(dt_stopping_open(&stopping, SIGKILL, 1, -1) == -EINVAL);
	dt_free_threads(&unstopped);
}

// A child that is made in the middle of a stop knows of none.
static void try_a_child_of_a_stop(void)
{
	struct dt_stopping stopping = open_stopping(PATIENT_NS);
	struct dt_threads unstopped = {0};
	struct dt_stop stop;
	check(dt_stop_begin(&stopping, &stop) == 0);
	pid_t child = (pid_t)syscall(SYS_fork);
	if (child == 0) {
		dt_stopping_forget(&stopping);
		stopping = open_stopping(PATIENT_NS);
		one_stop(&stopping, &unstopped);
		dt_stopping_close(&stopping);
		_exit(unstopped.count ? 1 : 0);
	}
	int status;
	check(dt_stop_end(&stop, &unstopped) == 0);
	check(waitpid(child, &status, 0) == child && status == 0);
	dt_free_threads(&unstopped);
	dt_stopping_close(&stopping);
}

void try_stops(void)
{
	struct dt_stopping hasty = open_stopping(100000000);
	struct dt_threads unstopped = {0};
	struct runner first = {0};
	begin(&first); // with the first thread a runtime begins its own
	end(&first);
	one_stop(&hasty, &unstopped); // who does not answer now is not waited for later
	strangers = unstopped.count;
	dt_free_threads(&unstopped);
	dt_stopping_close(&hasty);
	try_standing_still();
	try_late_answers();
	try_a_long_stop();
	try_many_stoppers();
	try_other_handlers();
	try_a_child_of_a_stop();
}
