// The clock by which the library measures its own costs.
#pragma once

#include <stdint.h>
#include <time.h>

// Nanoseconds since some instant in the past. Never goes back.
static inline uint64_t dt_now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}
