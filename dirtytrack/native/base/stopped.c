// Answers, in the handler and outside of it.
#define _GNU_SOURCE
#include "stopped.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "stop_words.h"

int32_t dt_this_thread(void)
{
	return (int32_t)syscall(SYS_gettid);
}

uint32_t *dt_word_of_this_thread(struct dt_stop_process *process)
{
	return &process->words[dt_this_thread()];
}

// The stop that this thread is to wait for, 0 if there is none.
static uint32_t answer(struct dt_stop_process *process, uint32_t *word)
{
	uint32_t asked = dt_stop_load(word), stop, answered;
	do {
		stop = dt_stop_load(&process->stop);
		if (!dt_stop_is_unanswered(asked))
			return 0;
		bool is_in_time = stop & 1 && dt_stop_about(stop, dt_stop_state(asked)) == asked;
		answered = is_in_time ? dt_stop_about(stop, DT_STOP_STOPPED) : DT_STOP_NONE;
	} while (!dt_stop_replace(word, &asked, answered));
	dt_stop_wake(word);
	return answered == DT_STOP_NONE ? 0 : stop;
}

static void wait_for_the_end(struct dt_stop_process *process, uint32_t *word, uint32_t stop)
{
	uint64_t end = dt_now() + __atomic_load_n(&process->longest_wait_ns, __ATOMIC_RELAXED);
	while (dt_stop_load(&process->stop) == stop && dt_now() < end)
		dt_stop_wait_until(&process->stop, stop, end);
	uint32_t stopped = dt_stop_about(stop, DT_STOP_STOPPED);
	if (dt_stop_load(&process->stop) == stop)
		dt_stop_replace(word, &stopped, dt_stop_about(stop, DT_STOP_LEFT));
}

void dt_stop_handle(int signal)
{
	int error = errno;
	struct dt_stop_process *process = dt_stop_known_process();
	uint32_t *word = dt_word_of_this_thread(process), stop = answer(process, word);
	(void)signal;
	if (stop)
		wait_for_the_end(process, word, stop);
	errno = error;
}

// One that has left the stop under way has to be found so; and one of the library's own is never waited for.
static bool says_that_it_waits(const struct dt_waiting *waiting)
{
	return waiting->word && waiting->before != DT_STOP_OWN && dt_stop_state(waiting->before) != DT_STOP_LEFT;
}

struct dt_waiting dt_begin_to_wait(void)
{
	struct dt_stop_process *process = dt_stop_known_process();
	struct dt_waiting waiting = {.word = process ? dt_word_of_this_thread(process) : NULL};
	if (waiting.word)
		waiting.before = dt_stop_load(waiting.word);
	if (says_that_it_waits(&waiting))
		dt_stop_become(waiting.word, DT_STOP_WAITING);
	return waiting;
}

void dt_have_waited(const struct dt_waiting *waiting)
{
	if (!says_that_it_waits(waiting))
		return;
	struct dt_stop_process *process = dt_stop_known_process();
	dt_stop_become(waiting->word,
		       DT_STOP_NONE); // first: a stop that begins now asks, and one that has begun is seen
	uint32_t stop = dt_stop_load(&process->stop);
	if (!(stop & 1))
		return;
	dt_stop_become(waiting->word, dt_stop_about(stop, DT_STOP_STOPPED));
	wait_for_the_end(process, waiting->word, stop);
}

static pthread_key_t own_key; // a value of it is a thread's word
static bool has_own_key;

static void disown(void *word)
{
	dt_stop_become(word, DT_STOP_NONE); // another thread may get its identifier
}

__attribute__((constructor)) static void make_key(void)
{
	has_own_key = pthread_key_create(&own_key, disown) == 0;
}

int dt_own_thread(void)
{
	struct dt_stop_process *process = dt_stop_process();
	uint32_t *word = process ? dt_word_of_this_thread(process) : NULL;
	if (!process || !has_own_key || pthread_setspecific(own_key, word))
		return -ENOMEM;
	dt_stop_become(word, DT_STOP_OWN);
	return 0;
}
