// A thread of a session's own, for what is done behind its calls. No signal is handled in it, so nobody stops it while
// others wait for what it holds. A forked child has none.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

#define DT_UNTIL_WOKEN UINT64_MAX

struct dt_worker {
	pthread_mutex_t joining; // held by who ends it
	pthread_t thread;
	bool runs;      // joining protects it
	bool stopping;  // atomic
	uint32_t woken; // a futex: rises with each call of dt_worker_wake
	// Does some work, without any lock of the caller's. Nanoseconds until it is to be called again, at most.
	uint64_t (*act)(void *context);
	void *context;
};

#define DT_WORKER_INITIALIZER {.joining = PTHREAD_MUTEX_INITIALIZER}

// Starts the thread, which calls act, again and again. 0 or -EAGAIN.
int dt_worker_start(struct dt_worker *worker, uint64_t (*act)(void *context), void *context);
// Has act called now, or once more if it is being called. Takes no lock.
void dt_worker_wake(struct dt_worker *worker);
// Ends the thread, once act has returned; nothing if there is none. The caller holds nothing that act may want.
void dt_worker_stop(struct dt_worker *worker);

#pragma GCC visibility pop
