// Whether this is still the process that it was: a forked child must not use its parent's sessions.
#pragma once

#include <stdint.h>

#pragma GCC visibility push(hidden)

// A number that names this address space: the same for the life of a process, another one in a forked child
// (also one made by a raw clone(2), which pthread_atfork misses). 0 if the kernel can't say. From any thread.
uint64_t dt_address_space(void);
// Whether this still is the address space that was so named. Takes no lock.
int dt_is_address_space(uint64_t name);

#pragma GCC visibility pop
