// Handlers that are taken, shared and given back.
#define _GNU_SOURCE
#include "stop_signal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "patience.h"
#include "quiet.h"
#include "stop_words.h"
#include "stopped.h"

void dt_stop_take_lock(struct dt_stop_process *process)
{
	if (pthread_mutex_trylock(&process->lock) == 0)
		return;
	struct dt_waiting waiting = dt_begin_to_wait();
	dt_takes_long(); // not before: what is given up may take a lock that a stopped thread holds
	pthread_mutex_lock(&process->lock);
	dt_have_waited(&waiting);
}

static bool is_handled_by_us(int signal)
{
	struct sigaction now;
	return sigaction(signal, NULL, &now) == 0 && now.sa_handler == dt_stop_handle;
}

int dt_stop_take_signal(struct dt_stop_process *process, int signal)
{
	struct sigaction ours = {.sa_handler = dt_stop_handle, .sa_flags = SA_RESTART | SA_ONSTACK}, before;
	if (sigaction(signal, NULL, &before) < 0)
		return -errno;
	if (before.sa_handler == dt_stop_handle)
		return 0;
	if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
		return -EBUSY;
	sigfillset(&ours.sa_mask);
	if (sigaction(signal, &ours, NULL) < 0)
		return -errno;
	process->signals[signal].before = before;
	return 0;
}

static bool is_fit(int signal)
{
	static const int unfit[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGCHLD};
	bool is_fit = signal > 0 && signal < DT_STOP_SIGNALS;
	for (size_t i = 0; i < sizeof unfit / sizeof *unfit; i++)
		is_fit &= signal != unfit[i];
	return is_fit;
}

// Ignoring a signal discards those that are on their way: none comes when it has its old meaning, which may be death.
static void leave(struct dt_stop_signal *use, int signal)
{
	const struct sigaction ignored = {.sa_handler = SIG_IGN};
	if (--use->users || !is_handled_by_us(signal))
		return;
	sigaction(signal, &ignored, NULL);
	sigaction(signal, &use->before, NULL);
}

int dt_stopping_open(struct dt_stopping *stopping, int signal, uint64_t limit_ns, int tasks)
{
	struct dt_stop_process *process = dt_stop_process();
	if (!is_fit(signal))
		return -EINVAL;
	if (!process)
		return -ENOMEM;
	tasks = tasks == -1 ? open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
			    : fcntl(tasks, F_DUPFD_CLOEXEC, 0);
	if (tasks < 0)
		return -errno;
	struct dt_quiet quiet = dt_quiet_begin();
	dt_stop_take_lock(process);
	int error = dt_stop_take_signal(process, signal);
	process->signals[signal].users += !error;
	pthread_mutex_unlock(&process->lock);
	dt_quiet_end(&quiet);
	if (error)
		close(tasks);
	else
		*stopping = (struct dt_stopping){signal, tasks, limit_ns};
	return error;
}

void dt_stopping_close(struct dt_stopping *stopping)
{
	struct dt_stop_process *process = dt_stop_process();
	if (!stopping->signal)
		return;
	struct dt_quiet quiet = dt_quiet_begin();
	dt_stop_take_lock(process);
	leave(&process->signals[stopping->signal], stopping->signal);
	pthread_mutex_unlock(&process->lock);
	dt_quiet_end(&quiet);
	dt_stopping_forget(stopping);
}

void dt_stopping_forget(struct dt_stopping *stopping)
{
	if (stopping->signal)
		close(stopping->tasks);
	*stopping = (struct dt_stopping){0};
}
