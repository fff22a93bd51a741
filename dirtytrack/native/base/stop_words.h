// What a thread was asked, and what it answered, is one word for each identifier of a thread: a state, and the stop
// that it is about. The stopper and the thread agree on it by compare-and-swap, and wait for each other on it as a
// futex:
//
//	the stopper: ASKED        a signal is sent, and waited for
//	             RECALLED     a signal is sent, and not waited for: it has not answered an earlier one
//	the thread:  STOPPED      it waits in the handler
//	             LEFT         it waited for too long, and went on
//	             NONE         it answered too late: it would be waited for again
//	             WAITING      it waits for a lock of the library's: it is as good as stopped
//	             OWN          it is the library's own
//
// So a thread that blocks the signal costs one wait, until it has handled it once: ASKED and RECALLED stay.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

enum dt_stop_state {
	DT_STOP_NONE,
	DT_STOP_ASKED,
	DT_STOP_RECALLED,
	DT_STOP_STOPPED,
	DT_STOP_LEFT,
	DT_STOP_WAITING,
	DT_STOP_OWN,
	DT_STOP_STATE_BITS = 3
};

enum {
	DT_STOP_THREADS_MOST = 1 << 22, // no identifier is as high (PID_MAX_LIMIT in the kernel)
	DT_STOP_SIGNALS = 65,
	DT_STOP_LISTING = 1 << 15, // bytes that getdents64(2) fills at a time
};

// A signal that threads are stopped by.
struct dt_stop_signal {
	uint32_t users; // 0: it has not our handler
	struct sigaction before;
};

// One for the process, in a mapping that is zeros again in every forked child: none of its threads was asked anything,
// and nobody holds the lock.
struct dt_stop_process {
	pthread_mutex_t lock; // of all below but the stop and the words
	struct dt_stop_signal signals[DT_STOP_SIGNALS];
	uint32_t stop;                        // the number of the latest one; odd: it is under way; atomic, and a futex
	uint32_t words[DT_STOP_THREADS_MOST]; // by identifier; likewise
	// Of the stop under way:
	uint64_t longest_wait_ns;            // in the handler; atomic
	int32_t asked[DT_STOP_THREADS_MOST]; // asked_count of them, of which unstopped_count, the first ones, are not
					     // stopped
	size_t asked_count;
	size_t unstopped_count;
	_Alignas(uint64_t) char listing[DT_STOP_LISTING];
};

// That of this process; NULL without memory. It stays where it is.
struct dt_stop_process *dt_stop_process(void);
// The same if it was asked for before; NULL: nobody stops threads.
struct dt_stop_process *dt_stop_known_process(void);

static inline uint32_t dt_stop_about(uint32_t stop, uint32_t state)
{
	return stop << DT_STOP_STATE_BITS | state;
}

static inline uint32_t dt_stop_state(uint32_t word)
{
	return word & ((1 << DT_STOP_STATE_BITS) - 1);
}

static inline bool dt_stop_is_unanswered(uint32_t word)
{
	return dt_stop_state(word) == DT_STOP_ASKED || dt_stop_state(word) == DT_STOP_RECALLED;
}

static inline uint32_t dt_stop_load(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static inline bool dt_stop_replace(uint32_t *word, uint32_t *expected, uint32_t wanted)
{
	return __atomic_compare_exchange_n(word, expected, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

// Wakes who waits for a word.
void dt_stop_wake(uint32_t *word);
// Waits while the word is as expected, until an instant of dt_now.
void dt_stop_wait_until(uint32_t *word, uint32_t expected, uint64_t end);
// Sets a thread's word to what it becomes, which answers what it was asked.
void dt_stop_become(uint32_t *word, uint32_t state);

#pragma GCC visibility pop
