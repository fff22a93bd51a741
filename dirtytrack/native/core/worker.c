// One thread, and a futex to wait at.
#include "worker.h"

#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../base/patience.h"
#include "../base/quiet.h"
#include "../base/stopped.h"

enum { STACK_BYTES = 1 << 18 };
enum {
	FUTEX_WAIT_PRIVATE = 128,
	FUTEX_WAKE_PRIVATE = 129
}; // the kernel's, so that the build needs none of its headers

static void wait(struct dt_worker *worker, uint32_t woken, uint64_t ns)
{
	const struct timespec time = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
	syscall(SYS_futex, &worker->woken, FUTEX_WAIT_PRIVATE, woken, ns == DT_UNTIL_WOKEN ? NULL : &time, NULL, 0);
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
	syscall(SYS_futex, &worker->woken, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
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
