// The mapping, and the futexes in it.
#define _GNU_SOURCE
#include "stop_words.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// The kernel's, so that the build needs none of its headers.
enum { FUTEX_WAKE_PRIVATE = 129, FUTEX_WAIT_BITSET_PRIVATE = 137, FUTEX_BITSET_MATCH_ANY = -1 };

static struct dt_stop_process *known; // atomic

struct dt_stop_process *dt_stop_known_process(void)
{
	return __atomic_load_n(&known, __ATOMIC_ACQUIRE);
}

struct dt_stop_process *dt_stop_process(void)
{
	struct dt_stop_process *process = dt_stop_known_process(), *none = NULL;
	if (process)
		return process;
	process =
		mmap(NULL, sizeof *process, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (process == MAP_FAILED)
		return NULL;
	madvise(process, sizeof *process, MADV_NOHUGEPAGE);
	bool is_made = madvise(process, sizeof *process, MADV_WIPEONFORK) == 0;
	if (is_made && __atomic_compare_exchange_n(&known, &none, process, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return process;
	munmap(process, sizeof *process);
	return none;
}

void dt_stop_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void dt_stop_wait_until(uint32_t *word, uint32_t expected, uint64_t end)
{
	const struct timespec time = {(time_t)(end / 1000000000), (long)(end % 1000000000)};
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected, &time, NULL, FUTEX_BITSET_MATCH_ANY);
}

void dt_stop_become(uint32_t *word, uint32_t state)
{
	if (dt_stop_is_unanswered(__atomic_exchange_n(word, state, __ATOMIC_SEQ_CST)))
		dt_stop_wake(word);
}
