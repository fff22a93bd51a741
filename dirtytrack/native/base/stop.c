// Who asks the threads, and waits for them. It holds the lock of the process.
#define _GNU_SOURCE
#include "stop.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "array.h"
#include "clock.h"
#include "memory.h"
#include "stop_signal.h"
#include "stop_words.h"
#include "stopped.h"
#include "tasks.h"

enum {
	FIRST_LOOK_NS = 100000, // after which it is asked whether a thread has ended ...
	LAST_LOOK_NS = 2000000, // ... and again, in intervals up to this
	LONGEST_STOP_NS = 1000000000,
};

// Whether a thread does nothing until the stop ends.
static bool has_stopped(const struct dt_stop_process *process, int32_t id)
{
	uint32_t word = dt_stop_load(&process->words[id]);
	return word == dt_stop_about(process->stop, DT_STOP_STOPPED) || word == DT_STOP_WAITING || word == DT_STOP_OWN;
}

// Asks a thread to stop, unless it was asked, or need not be. It is not asked any more when it is late.
static void ask(struct dt_stop_process *process, const struct dt_stopping *how, int32_t id, bool is_late)
{
	uint32_t *word = &process->words[id], asked = dt_stop_load(word), state;
	do {
		if (asked >> DT_STOP_STATE_BITS == dt_stop_about(process->stop, DT_STOP_NONE) >> DT_STOP_STATE_BITS ||
		    asked == DT_STOP_WAITING || asked == DT_STOP_OWN)
			return;
		state = dt_stop_is_unanswered(asked) ? DT_STOP_RECALLED : DT_STOP_ASKED;
	} while (!is_late && !dt_stop_replace(word, &asked, dt_stop_about(process->stop, state)));
	process->asked[process->asked_count++] = id;
	if (is_late || syscall(SYS_tgkill, getpid(), id, how->signal) == 0)
		return;
	dt_stop_become(word, DT_STOP_NONE); // it is not on its way
	if (errno == ESRCH)
		process->asked_count--;
}

struct asking {
	struct dt_stop_process *process;
	const struct dt_stopping *how;
	int32_t self;
	bool is_late;
};

static void ask_listed(void *context, int32_t id)
{
	const struct asking *in = context;
	if (id < DT_STOP_THREADS_MOST && id != in->self)
		ask(in->process, in->how, id, in->is_late);
}

// Asks all that are listed; how many are.
static int ask_all(struct dt_stop_process *process, const struct dt_stopping *how, bool is_late)
{
	struct asking asking = {process, how, dt_this_thread(), is_late};
	return dt_tasks_list(how->tasks, process->listing, sizeof process->listing, ask_listed, &asking);
}

static void wait_for_answer(struct dt_stop_process *process, const struct dt_stopping *how, int32_t id, uint64_t end)
{
	uint32_t *word = &process->words[id], asked = dt_stop_about(process->stop, DT_STOP_ASKED);
	uint64_t pause = FIRST_LOOK_NS;
	for (uint64_t now; dt_stop_load(word) == asked && (now = dt_now()) < end;) {
		uint64_t look = now + pause < end ? now + pause : end;
		dt_stop_wait_until(word, asked, look);
		if (dt_stop_load(word) == asked && dt_now() >= look && dt_task_fate(how->tasks, id) != DT_ALIVE)
			return;
		pause = 2 * pause < LAST_LOOK_NS ? 2 * pause : LAST_LOOK_NS;
	}
}

// Takes those that are gone out of the list, and puts those that are not stopped in front; whether nobody was gone.
static bool sort_asked(struct dt_stop_process *process, const struct dt_stopping *how)
{
	int32_t *asked = process->asked;
	bool nobody_gone = true;
	process->unstopped_count = 0;
	for (size_t i = 0; i < process->asked_count;) {
		int32_t id = asked[i];
		enum dt_fate fate = has_stopped(process, id) ? DT_ENDED : dt_task_fate(how->tasks, id);
		if (fate == DT_ENDED) {
			i++;
		} else if (fate == DT_GONE) {
			dt_stop_become(&process->words[id], DT_STOP_NONE); // another thread may get its identifier
			asked[i] = asked[--process->asked_count];
			nobody_gone = false;
		} else {
			asked[i++] = asked[process->unstopped_count];
			asked[process->unstopped_count++] = id;
		}
	}
	return nobody_gone;
}

// A listing may lack threads that began meanwhile, and one for each that ended meanwhile. It is whole if each thread in
// it is still there afterwards, and they are all.
static void stop_all(struct dt_stop_process *process, const struct dt_stopping *how)
{
	uint64_t end = dt_now() + how->limit_ns;
	process->asked_count = 0;
	__atomic_store_n(&process->longest_wait_ns, how->limit_ns + LONGEST_STOP_NS, __ATOMIC_RELAXED);
	__atomic_add_fetch(&process->stop, 1, __ATOMIC_SEQ_CST);
	for (bool is_whole = false, is_late = false; !is_whole && !is_late;) {
		is_late = dt_now() >= end;
		int listed = ask_all(process, how, is_late);
		for (size_t i = 0; i < process->asked_count && !is_late; i++)
			wait_for_answer(process, how, process->asked[i], end);
		is_whole = sort_asked(process, how) && dt_tasks_alive(how->tasks) == listed;
	}
}

int dt_stop_begin(const struct dt_stopping *stopping, struct dt_stop *stop)
{
	struct dt_stop_process *process = dt_stop_process(); // it is there
	*stop = (struct dt_stop){.quiet = dt_quiet_begin()};
	dt_stop_take_lock(process);
	int error = dt_stop_take_signal(process, stopping->signal);
	if (error) {
		pthread_mutex_unlock(&process->lock);
		dt_quiet_end(&stop->quiet);
		return error;
	}
	stop->patience = dt_patience_suspend();
	stop_all(process, stopping);
	return 0;
}

static int list_unstopped(struct dt_stop_process *process, uint32_t stop, struct dt_threads *unstopped)
{
	size_t n = process->unstopped_count;
	int error = dt_make_room(&unstopped->ids, &unstopped->room, process->asked_count, sizeof *unstopped->ids);
	unstopped->count = 0;
	if (error)
		return error;
	for (size_t i = 0; i < n; i++)
		unstopped->ids[i] = process->asked[i];
	for (size_t i = n; i < process->asked_count; i++)
		if (dt_stop_load(&process->words[process->asked[i]]) == dt_stop_about(stop, DT_STOP_LEFT))
			unstopped->ids[n++] = process->asked[i];
	unstopped->count = n;
	return 0;
}

int dt_stop_end(struct dt_stop *stop, struct dt_threads *unstopped)
{
	struct dt_stop_process *process = dt_stop_process();
	uint32_t number = __atomic_fetch_add(&process->stop, 1, __ATOMIC_SEQ_CST);
	dt_stop_wake(&process->stop);
	dt_patience_resume(stop->patience);
	int error = list_unstopped(process, number, unstopped);
	pthread_mutex_unlock(&process->lock);
	dt_quiet_end(&stop->quiet);
	return error;
}

void dt_free_threads(struct dt_threads *threads)
{
	dt_free(threads->ids, threads->room * sizeof *threads->ids);
	*threads = (struct dt_threads){0};
}
