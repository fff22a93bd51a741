// Descriptors, and then the session.
#include "opening.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../base/memory.h"
#include "../core/lifetime.h"
#include "../kernel/probe.h"
#include "../kernel/userfaultfd.h"
#include "wp_async.h"
#ifndef DT_NATIVE_ONLY
#include "compare.h"
#endif

void *dt_opening_new(size_t size)
{
	return dt_alloc(size);
}

void dt_opening_free(void *pointer)
{
	struct dt_opening *opening = pointer;
	if (opening->session)
		dt_session_release(opening->session);
	dt_free(opening, sizeof *opening);
}

static int open_userfaultfd(void)
{
	const int flags = O_CLOEXEC | O_NONBLOCK | DT_UFFD_USER_MODE_ONLY;
	int fd = dt_uffd_syscall(flags);
	if (fd != -EPERM && fd != -EACCES && fd != -ENOSYS)
		return fd;
	int device = dt_uffd_device(flags); // where a filter forbids the system call
	return device >= 0 ? device : fd;
}

// Asks for everything that helps, else for what it takes; a kernel that refuses leaves the descriptor as it was.
static int initialise(int userfaultfd)
{
	const uint64_t choices[] = {
		DT_UFFD_FEATURE_WP_ASYNC | DT_UFFD_FEATURE_WP_UNPOPULATED | DT_UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
		DT_UFFD_FEATURE_WP_ASYNC,
	};
	int error = 0;
	for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
		uint64_t features = choices[i];
		error = dt_uffd_api(userfaultfd, &features);
		if (error != -EINVAL)
			return error;
	}
	return -EOPNOTSUPP;
}

static int open_pagemap(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

// Opens a session over both, which it owns also when it fails.
static int open_over(struct dt_opening *opening, int userfaultfd, int pagemap, int holes)
{
	int error = initialise(userfaultfd);
	opening->call = "UFFDIO_API";
	if (!error && holes < 0) {
		opening->call = "PAGEMAP_SCAN";
		holes = dt_probe_hole_reporting(userfaultfd, pagemap);
		error = holes == -ENOTTY ? -EOPNOTSUPP : holes < 0 ? holes : 0;
	}
	if (!error) {
		opening->call = "mmap";
		return dt_session_open_wp_async(userfaultfd, pagemap, holes, &opening->session, &opening->cursor);
	}
	close(pagemap);
	close(userfaultfd);
	return error;
}

int dt_open_wp_async_over(struct dt_opening *opening, int userfaultfd, int pagemap, int holes)
{
	opening->call = "userfaultfd";
	if (userfaultfd < 0)
		userfaultfd = open_userfaultfd();
	if (userfaultfd >= 0 && pagemap < 0) {
		opening->call = "open /proc/self/pagemap";
		pagemap = open_pagemap();
	}
	if (userfaultfd >= 0 && pagemap >= 0)
		return open_over(opening, userfaultfd, pagemap, holes);
	if (userfaultfd >= 0)
		close(userfaultfd);
	else if (pagemap >= 0)
		close(pagemap);
	return userfaultfd < 0 ? userfaultfd : pagemap;
}

int dt_open_wp_async(struct dt_opening *opening, int holes)
{
	return dt_open_wp_async_over(opening, -1, -1, holes);
}

#ifndef DT_NATIVE_ONLY
int dt_open_compare(struct dt_opening *opening)
{
	int pagemap = open_pagemap(); // it only spares sparse regions the reading of what is not populated
	opening->call = "mmap";
	return dt_session_open_compare(pagemap < 0 ? -1 : pagemap, &opening->session, &opening->cursor);
}
#endif
