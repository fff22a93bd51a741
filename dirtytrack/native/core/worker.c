// One thread, and a futex to wait at.
#include "worker.h"

#include <stddef.h>
#include <sys/prctl.h>

#include "../base/futex.h"
#include "../base/patience.h"
#include "../base/quiet.h"
#include "../base/stopped.h"

enum { STACK_BYTES = 1 << 18 };

static void wait(struct dt_worker *worker, uint32_t woken, uint64_t ns)
{
	const struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
	dt_futex_wait(&worker->woken, woken, ns == DT_UNTIL_WOKEN ? NULL : &time);
}

static void *run(void *argument)
{
	struct dt_worker *worker = argument;
	prctl(PR_SET_NAME, "dirtytrack");
	dt_own_thread();
	while (!__atomic_load_n(&worker->stopping, __ATOMIC_ACQUIRE)) {
		uint32_t woken = __atomic_load_n(&worker->woken, __ATOMIC_ACQUIRE);
		uint64_t ns = worker->act(worker->context);
		if (!__atomic_load_n(&worker->stopping, __ATOMIC_ACQUIRE))
			wait(worker, woken, ns);
	}
	return NULL;
}

int dt_worker_start(struct dt_worker *worker, uint64_t (*act)(void *context), void *context)
{
	worker->act = act;
	worker->context = context;
	pthread_attr_t attributes;
	int error = pthread_attr_init(&attributes);
	if (error)
		return -error;
	pthread_attr_setstacksize(&attributes, STACK_BYTES); // else it is the default, which only costs addresses
	struct dt_quiet quiet = dt_quiet_begin();            // the thread inherits what is blocked
	error = pthread_create(&worker->thread, &attributes, run, worker);
	dt_quiet_end(&quiet);
	pthread_attr_destroy(&attributes);
	worker->runs = !error;
	return -error;
}

void dt_worker_wake(struct dt_worker *worker)
{
	__atomic_add_fetch(&worker->woken, 1, __ATOMIC_ACQ_REL);
	dt_futex_wake_one(&worker->woken);
}

void dt_worker_stop(struct dt_worker *worker)
{
	pthread_mutex_lock(&worker->joining);
	if (worker->runs) {
		dt_takes_long();
		__atomic_store_n(&worker->stopping, true, __ATOMIC_RELEASE);
		dt_worker_wake(worker);
		pthread_join(worker->thread, NULL);
		worker->runs = false;
	}
	pthread_mutex_unlock(&worker->joining);
}
