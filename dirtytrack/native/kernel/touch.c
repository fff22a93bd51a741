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

enum {
	PIPE_BYTES = 1 << 16, // that a new pipe holds
	AT_ONCE = 1 << 30,    // bytes that one call is asked for: the kernel stops short of 2 GiB
	PROBES = 128,         // pages of which one call reads a byte
	PROBE_COST = 32,      // of which each costs as much as to look for guard pages in so many
};

typedef ssize_t vm_call(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long, unsigned long);

static long copy_at_once(vm_call *call, const struct iovec *local, size_t locals, const struct iovec *remote,
			 size_t remotes)
{
	pid_t self = (pid_t)syscall(SYS_gettid); // not getpid(): the first thread may have ended
	uint64_t bytes = 0;
	for (size_t i = 0; i < remotes; i++)
		bytes += remote[i].iov_len;
	dt_takes_copy(bytes);
	ssize_t done = call(self, local, locals, remote, remotes, 0);
	if (done < 0)
		return errno == EFAULT ? 0 : -errno;
	return done;
}

static uint64_t page_of(uint64_t address)
{
	return address & -(uint64_t)sysconf(_SC_PAGESIZE);
}

static bool is_forbidden(long result)
{
	return result == -EPERM || result == -ENOSYS;
}

// Through a pipe, up to the page of theirs that can't be touched. The bytes done, or -errno.
static long copy_by_pipe(uint64_t theirs, uint8_t *own, size_t bytes, bool write_theirs)
{
	uint8_t *memory = (uint8_t *)(uintptr_t)theirs;
	const uint8_t *from = write_theirs ? own : memory;
	uint8_t *to = write_theirs ? memory : own;
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE), done = 0;
	int ends[2];
	long error = 0;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	while (done < bytes) {
		size_t beyond = (theirs + done) - page_of(theirs + done); // a pipe takes pieces of a page's length ...
		size_t wanted =
			beyond ? page_size - beyond : PIPE_BYTES; // ... so that they are pages, from the second on
		wanted = bytes - done < wanted ? bytes - done : wanted;
		ssize_t sent = write(ends[1], from + done, wanted);
		ssize_t got = sent > 0 ? read(ends[0], to + done, (size_t)sent) : sent;
		if (got < 0 && errno != EFAULT)
			error = -errno;
		if (got > 0)
			done += (size_t)got;
		if (got <= 0 || got < sent)
			break;
	}
	close(ends[0]);
	close(ends[1]);
	return error ? error : (long)done;
}

// 0 if all of the bytes were done, else why not, and at which page.
static int outcome(uint64_t start, long done, size_t bytes, uint64_t *refused_ret)
{
	*refused_ret = page_of(start + (done > 0 ? (uint64_t)done : 0));
	return done < 0 ? (int)done : (size_t)done < bytes ? -EFAULT : 0;
}

// Any number of bytes. The memory that may be inaccessible is the call's local side, which the kernel copies as it does
// the buffers of every call. The remote side it pins, and that refuses memory of devices and of memfd_secret(2), and
// takes a copy of each page that is shared with a forked child.
static int copy(uint64_t theirs, uint8_t *own, size_t bytes, bool write_theirs, uint64_t *refused_ret)
{
	int error = 0;
	while (bytes && !error) {
		size_t part = bytes < AT_ONCE ? bytes : AT_ONCE;
		struct iovec local = {(void *)(uintptr_t)theirs, part}, remote = {own, part};
		long done = copy_at_once(write_theirs ? process_vm_readv : process_vm_writev, &local, 1, &remote, 1);
		if (is_forbidden(done))
			done = copy_by_pipe(theirs, own, part, write_theirs);
		error = outcome(theirs, done, part, refused_ret);
		theirs += part;
		own += part;
		bytes -= part;
	}
	return error;
}

long dt_read_memory(uint64_t start, void *to, size_t bytes)
{
	struct iovec local = {to, bytes}, remote = {(void *)(uintptr_t)start, bytes};
	return copy_at_once(process_vm_readv, &local, 1, &remote, 1);
}

// Pieces that lie one after another are one: the kernel pins each by itself. How many are left of n, at least one.
static size_t join(const struct iovec *pieces, size_t n, struct iovec *joined)
{
	struct iovec *last = joined;
	*last = pieces[0];
	for (size_t i = 1; i < n; i++) {
		if ((uint8_t *)last->iov_base + last->iov_len == pieces[i].iov_base)
			last->iov_len += pieces[i].iov_len;
		else
			*++last = pieces[i];
	}
	return (size_t)(last - joined) + 1;
}

int dt_copy_pieces(const struct iovec *from, const struct iovec *to, size_t n, struct dt_run *refused_ret)
{
	struct iovec own[DT_PIECES];
	long done = copy_at_once(process_vm_writev, from, n, own, join(to, n, own));
	int error = 0;
	for (size_t i = 0; !error && i < n; i++) {
		size_t bytes = from[i].iov_len;
		uint64_t start = (uintptr_t)from[i].iov_base;
		refused_ret->stop = start + bytes;
		if (is_forbidden(done))
			error = copy(start, to[i].iov_base, bytes, false, &refused_ret->start);
		else if (done < (long)bytes)
			error = outcome(start, done, bytes, &refused_ret->start);
		else
			done -= (long)bytes;
	}
	return error;
}

int dt_copy_from(uint64_t start, void *to, size_t bytes, uint64_t *refused_ret)
{
	return copy(start, to, bytes, false, refused_ret);
}

int dt_copy_to(uint64_t start, const void *from, size_t bytes, uint64_t *refused_ret)
{
	return copy(start, (void *)(uintptr_t)from, bytes, true, refused_ret);
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

// Has the kernel read a byte of each of n pages. 0, -EFAULT, or -errno where a filter forbids that.
static int read_bytes(const struct iovec *from, size_t n)
{
	uint8_t bytes[PROBES];
	struct iovec to = {bytes, n};
	dt_takes(n * 100); // those that are in no cache
	long done = copy_at_once(process_vm_writev, from, n, &to, 1);
	return done < 0 ? (int)done : (size_t)done < n ? -EFAULT : 0;
}

static int probe(uint64_t base, uint64_t page_size, const struct dt_run *run, const struct dt_run *end)
{
	struct iovec from[PROBES];
	size_t n = 0;
	int error = 0;
	for (; !error && run < end; run++)
		for (uint64_t page = run->start; !error && page < run->stop; page++) {
			void *byte = (void *)(uintptr_t)(base + page * page_size);
			__builtin_prefetch(byte); // all of them at the same time
			from[n++] = (struct iovec){byte, 1};
			if (n < PROBES)
				continue;
			error = read_bytes(from, n);
			n = 0;
		}
	return !error && n ? read_bytes(from, n) : error;
}

int dt_may_touch_runs(struct dt_touch *touch, uint64_t base, uint64_t page_size, const struct dt_run *runs, size_t n)
{
	uint64_t start = base + runs[0].start * page_size, stop = base + runs[n - 1].stop * page_size;
	bool are_few = dt_runs_count(runs, n) * PROBE_COST < (stop - start) / page_size;
	int permits = are_few ? permitted(touch, start, stop) : 0;
	int error = permits > 0 ? probe(base, page_size, runs, runs + n) : -EACCES;
	return error && error != -EFAULT ? dt_may_touch(touch, start, stop) : error;
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
