// futex(2) within a process.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// The kernel's, so that the build needs none of its headers.
enum { DT_FUTEX_WAIT_PRIVATE = 128, DT_FUTEX_WAKE_PRIVATE = 129 };

// Waits while the word is what was expected, or for less; NULL: no time limits it.
static inline void dt_futex_wait(uint32_t *word, uint32_t expected, const struct timespec *limit)
{
	syscall(SYS_futex, word, DT_FUTEX_WAIT_PRIVATE, expected, limit, NULL, 0);
}

static inline void dt_futex_wake_one(uint32_t *word)
{
	syscall(SYS_futex, word, DT_FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
