// Opening a session with all that it works on. The place where it comes to be exists before, so that an interrupt in
// Python finds nothing that nobody would close.
#pragma once

#include "../core/session.h"

#pragma GCC visibility push(hidden)

struct dt_opening {
	struct dt_session *session; // NULL: it is not open
	uint64_t cursor;            // its default cursor
	const char *call;           // the system call that failed
};

// An empty one, and its end, which closes the session. For cffi's ffi.new_allocator, which passes the struct's size.
void *dt_opening_new(size_t size);
void dt_opening_free(void *opening);
// Opens a session over a new userfaultfd and this process's pagemap. holes: a value of enum dt_hole_reporting, or -1 to
// find it out. -errno of what was refused.
int dt_open_wp_async(struct dt_opening *opening, int holes);
// The same over descriptors of the caller's, which are its own from here on, also when it fails: a userfaultfd before
// UFFDIO_API, and a pagemap; -1: as above. -EINVAL: one of them is something else, or another process's.
int dt_open_wp_async_over(struct dt_opening *opening, int userfaultfd, int pagemap, int holes);
// Opens one that compares, over this process's pagemap where there is one. 0 or -ENOMEM.
int dt_open_compare(struct dt_opening *opening);

#pragma GCC visibility pop
