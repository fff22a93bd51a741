// The backend that compares: a copy of all tracked memory, and a look at every byte. It needs no support by the kernel,
// and sees whatever changed contents, by whom and by what way it may be.
#pragma once

#include "../core/session.h"

#pragma GCC visibility push(hidden)

extern const struct dt_backend_ops dt_backend_compare;

// Opens a session that compares the memory with a copy of it. pagemap: a descriptor of /proc/self/pagemap, which it
// owns from here on, also when it fails, or -1: sparse regions are then read in full. 0 or -ENOMEM.
int dt_session_open_compare(int pagemap, struct dt_session **session_ret, uint64_t *cursor_ret);

#pragma GCC visibility pop
