// The backend of userfaultfd's asynchronous write-protection and PAGEMAP_SCAN: the hardware finds the writes.
#pragma once

#include "../core/session.h"

#pragma GCC visibility push(hidden)

extern const struct dt_backend_ops dt_backend_wp_async;

// Opens a session over a userfaultfd (WP_ASYNC enabled) and a descriptor of /proc/self/pagemap. It owns both from here
// on, also when it fails. holes: a value of enum dt_hole_reporting. cursor_ret: the default cursor. 0 or -ENOMEM.
int dt_session_open_wp_async(int userfaultfd, int pagemap, int holes, struct dt_session **session_ret,
			     uint64_t *cursor_ret);

#pragma GCC visibility pop
