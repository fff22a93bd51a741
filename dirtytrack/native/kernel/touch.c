// The calls that return EFAULT: process_vm_readv(2) and its twin, a pipe, MADV_POPULATE_READ and its twin.
#define _GNU_SOURCE
#include "touch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../base/patience.h"
#include "pagemap.h"

#ifndef MADV_POPULATE_READ // Linux 5.14
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

enum { PIPE_BYTES = 1 << 16 }; // that a new pipe holds

typedef ssize_t vm_call(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long, unsigned long);

static long copy(vm_call *call, uint64_t start, void *own, size_t bytes)
{
	struct iovec local = {own, bytes}, remote = {(void *)(uintptr_t)start, bytes};
	pid_t self = (pid_t)syscall(SYS_gettid); // not getpid(): the first thread may have ended
	dt_takes_copy(bytes);
	ssize_t done = call(self, &local, 1, &remote, 1, 0);
	if (done < 0)
		return errno == EFAULT ? 0 : -errno;
	return done;
}

long dt_read_memory(uint64_t start, void *to, size_t bytes)
{
	return copy(process_vm_readv, start, to, bytes);
}

long dt_write_memory(uint64_t start, const void *from, size_t bytes)
{
	return copy(process_vm_writev, start, (void *)from, bytes);
}

// Through a pipe, from one address to another one. The bytes done, or -errno.
static long copy_by_pipe(const uint8_t *from, uint8_t *to, size_t bytes)
{
	int ends[2];
	long done = 0;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	while ((size_t)done < bytes) {
		size_t left = bytes - (size_t)done, wanted = left < PIPE_BYTES ? left : PIPE_BYTES;
		ssize_t sent = write(ends[1], from + done, wanted);
		ssize_t got = sent > 0 ? read(ends[0], to + done, (size_t)sent) : sent;
		if (got < 0 && errno != EFAULT)
			done = -errno;
		else if (got > 0)
			done += got;
		if (got <= 0 || got < sent)
			break;
	}
	close(ends[0]);
	close(ends[1]);
	return done;
}

static int is_forbidden(long result)
{
	return result == -EPERM || result == -ENOSYS;
}

// 0 if all was done, else why not.
static int outcome(uint64_t start, long done, size_t bytes, uint64_t *refused_ret)
{
	uint64_t at = start + (done > 0 ? (uint64_t)done : 0), page = (uint64_t)sysconf(_SC_PAGESIZE);
	*refused_ret = at & -page;
	return done < 0 ? (int)done : (size_t)done < bytes ? -EFAULT : 0;
}

int dt_copy_from(uint64_t start, void *to, size_t bytes, uint64_t *refused_ret)
{
	long done = dt_read_memory(start, to, bytes);
	if (is_forbidden(done))
		done = copy_by_pipe((const uint8_t *)(uintptr_t)start, to, bytes);
	return outcome(start, done, bytes, refused_ret);
}

int dt_copy_to(uint64_t start, const void *from, size_t bytes, uint64_t *refused_ret)
{
	long done = dt_write_memory(start, from, bytes);
	if (is_forbidden(done))
		done = copy_by_pipe(from, (uint8_t *)(uintptr_t)start, bytes);
	return outcome(start, done, bytes, refused_ret);
}

// 1 if all mappings of [start, stop) permit it, 0 if one does not, or -errno.
static int permitted(struct dt_touch *touch, uint64_t start, uint64_t stop)
{
	uint64_t flags = DT_PROCMAP_QUERY_VMA_READABLE | (touch->write ? DT_PROCMAP_QUERY_VMA_WRITABLE : 0);
	struct dt_procmap_query query;
	for (uint64_t at = start > touch->permitted_to ? start : touch->permitted_to; at < stop; at = query.vma_end) {
		int error = dt_procmap_query(touch->maps, at, 0, &query, NULL, 0);
		if (error)
			return error == -ENOENT ? 0 : error;
		if ((query.vma_flags & flags) != flags)
			return 0;
		touch->permitted_to = query.vma_end;
	}
	return 1;
}

// 1 if there are guard pages, 0 if there are none, or -errno.
static int has_guards(const struct dt_touch *touch, uint64_t start, uint64_t stop)
{
	struct dt_page_region found;
	struct dt_pm_scan_arg arg = {
		.size = sizeof arg,
		.start = start,
		.end = stop,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.max_pages = 1,
		.category_mask = DT_PAGE_IS_GUARD,
		.return_mask = DT_PAGE_IS_GUARD,
	};
	return (int)dt_pagemap_scan(touch->pagemap, &arg);
}

int dt_may_touch(struct dt_touch *touch, uint64_t start, uint64_t stop)
{
	int permits = permitted(touch, start, stop);
	if (permits <= 0)
		return permits < 0 ? permits : -EACCES;
	int guards = has_guards(touch, start, stop);
	return guards < 0 ? guards : guards ? -EFAULT : 0;
}

int dt_try_touch(const struct dt_touch *touch, uint64_t start, uint64_t stop)
{
	int advice = touch->write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ, result;
	dt_takes_copy(stop - start); // what is there already is only looked at
	do
		result = madvise((void *)(uintptr_t)start, stop - start, advice);
	while (result < 0 && (errno == EINTR || errno == EAGAIN));
	if (result == 0)
		return 0;
	return errno == EINVAL || errno == ENOMEM ? -EACCES : -errno; // EINVAL: protected; ENOMEM: unmapped
}
