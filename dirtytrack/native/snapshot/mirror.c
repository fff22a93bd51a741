// The kernel copies memory for us where it may: it returns an error where we would get a signal.
#define _GNU_SOURCE
#include "mirror.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../base/bytes.h"
#include "../base/memory.h"
#include "../base/patience.h"

enum {
	PIECES = 64,       // copied by one call; all of them are looked ahead of
	AT_ONCE = 1 << 30, // bytes, likewise: the kernel stops short of 2 GiB
	BUFFER = 1 << 18,
};

// What is to be copied by one call.
struct batch {
	struct iovec from[PIECES];
	struct iovec to[PIECES];
	size_t count;
	size_t bytes;
	struct dt_failure *failure;
};

// The bytes of a batch that were copied, or -errno.
static ssize_t copy_batch(const struct batch *batch)
{
	dt_takes_copy(batch->bytes);
	pid_t self = (pid_t)syscall(SYS_gettid); // not getpid(): the first thread may have ended
	ssize_t got = process_vm_readv(self, batch->to, batch->count, batch->from, batch->count, 0);
	if (got >= 0)
		return got;
	if (errno != EPERM && errno != ENOSYS)
		return errno == EFAULT ? 0 : -errno;
	for (size_t i = 0; i < batch->count; i++) // refused by a filter: so the memory has to be readable
		memcpy(batch->to[i].iov_base, batch->from[i].iov_base, batch->from[i].iov_len);
	return (ssize_t)batch->bytes;
}

// Copies what is in the batch, which is empty then.
static int flush(struct batch *batch)
{
	ssize_t got = batch->count ? copy_batch(batch) : 0;
	int error = got < 0 ? (int)got : (size_t)got < batch->bytes ? -EFAULT : 0;
	if (error) {
		const struct iovec *piece = batch->from;
		size_t done = got < 0 ? 0 : (size_t)got;
		for (; done >= piece->iov_len; piece++)
			done -= piece->iov_len;
		uint64_t start = (uintptr_t)piece->iov_base;
		*batch->failure = (struct dt_failure){"process_vm_readv", start + done, start + piece->iov_len};
	}
	batch->count = batch->bytes = 0;
	return error;
}

// Puts bytes of tracked memory into the batch, or copies what a session that compares has seen there.
static int add(struct dt_session *session, struct batch *batch, uint64_t from, uint64_t bytes, uint8_t *to)
{
	int error = 0;
	if (session->backend.ops->contents) {
		dt_session_contents(session, (const void *)(uintptr_t)from, bytes, to);
		return 0;
	}
	while (bytes && !error) {
		uint64_t room = AT_ONCE - batch->bytes, part = bytes < room ? bytes : room;
		dt_look_ahead((const void *)(uintptr_t)from);
		dt_look_ahead(to);
		batch->from[batch->count] = (struct iovec){(void *)(uintptr_t)from, part};
		batch->to[batch->count++] = (struct iovec){to, part};
		batch->bytes += part;
		from += part;
		to += part;
		bytes -= part;
		if (batch->count == PIECES || batch->bytes == AT_ONCE)
			error = flush(batch);
	}
	return error;
}

// Copies the pages of [start, stop), offsets in both, that are not zeros.
static void copy_filled(const uint8_t *from, uint64_t start, uint64_t stop, uint64_t page_size, uint8_t *to)
{
	for (uint64_t at = start, next; at < stop; at = next) {
		next = at - at % page_size + page_size;
		next = next < stop ? next : stop;
		if (!dt_is_zero(from + (at - start), next - at))
			memcpy(to + at, from + (at - start), next - at);
	}
}

int dt_mirror_fill(struct dt_session *session, const struct dt_extent *extent, uint64_t start, uint64_t stop,
		   uint8_t *copy, struct dt_failure *failure)
{
	struct batch batch = {.failure = failure};
	uint8_t *buffer = dt_alloc(BUFFER);
	int error = buffer ? 0 : -ENOMEM;
	while (start < stop && !error) {
		uint64_t end = start - start % BUFFER + BUFFER;
		end = end < stop ? end : stop;
		error = add(session, &batch, extent->address + start, end - start, buffer);
		if (!error)
			error = flush(&batch);
		if (!error)
			copy_filled(buffer, start, end, 1ULL << session->backend.page_shift, copy);
		start = end;
	}
	dt_free(buffer, BUFFER);
	return error;
}

int dt_mirror_update(struct dt_session *session, uint64_t cursor, const struct dt_slice *slice,
		     const struct dt_extent *extent, uint8_t *copy, struct dt_epoch *epoch, uint64_t *copied)
{
	struct batch batch = {.failure = &epoch->failure};
	int error = dt_collect(session, cursor, DT_COLLECT, slice, 1, epoch);
	*copied = 0;
	for (uint64_t i = 0; !error && i < epoch->run_count; i++) {
		struct dt_run bytes = dt_extent_bytes(extent, epoch->buffers.runs[i]);
		error = add(session, &batch, extent->address + bytes.start, bytes.stop - bytes.start,
			    copy + bytes.start);
		*copied += bytes.stop - bytes.start;
	}
	if (!error)
		error = flush(&batch);
	if (!error)
		epoch->settled = 1;
	return error;
}
