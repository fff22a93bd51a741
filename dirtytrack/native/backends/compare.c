// A copy of all tracked memory, in chunks.
#include "compare.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../base/array.h"
#include "../base/memory.h"
#include "../core/lifetime.h"
#include "../kernel/pagemap.h"
#include "../kernel/touch.h"
#include "chunks.h"

enum { BUFFER = 1 << 19 }; // bytes compared at a time

// The state: a block is the contents of its pages as the last arming scan found them.
static struct dt_chunks *shadows_of(const struct dt_backend *backend)
{
	return backend->state;
}

static int open_compare(struct dt_backend *backend)
{
	struct dt_chunks *shadows = dt_alloc(sizeof *shadows);
	if (!shadows)
		return -ENOMEM;
	shadows->block_bytes = (size_t)DT_CHUNK_PAGES << backend->page_shift;
	shadows->page_shift = backend->page_shift;
	backend->state = shadows;
	return 0;
}

static void free_compare(struct dt_backend *backend)
{
	if (!backend->state)
		return;
	dt_chunks_free(shadows_of(backend));
	dt_free(backend->state, sizeof(struct dt_chunks));
	backend->state = NULL;
}

static int add(struct dt_backend *backend, uint64_t start, uint64_t stop, bool *huge_ret, struct dt_failure *failure)
{
	*huge_ret = false;
	int error = dt_mapped(start, stop - start);
	*failure = (struct dt_failure){error ? "msync" : "mmap", start, stop};
	return error ? error : dt_chunks_hold(shadows_of(backend), start, stop);
}

static int remove_range(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	dt_chunks_release(shadows_of(backend), start, stop);
	return 0;
}

// One scan on its way: where it reads to, and where it writes what it finds.
struct comparison {
	const struct dt_backend *backend;
	uint8_t *bytes; // BUFFER of them: what is being compared, since the memory itself may change meanwhile
	bool arm;       // what is found becomes what the next scan compares with
	struct dt_run *out;
	size_t n; // runs in out
};

// Compares [start, stop), which lies in one chunk. What can't be read is left for a scan that can.
static int compare_range(struct comparison *in, const struct dt_chunk *chunk, uint64_t start, uint64_t stop)
{
	const size_t page = (size_t)1 << in->backend->page_shift;
	while (start < stop) {
		size_t wanted = stop - start < BUFFER ? stop - start : BUFFER;
		uint8_t *shadow = (uint8_t *)chunk->block + (start - chunk->start);
		long got = dt_read_memory(start, in->bytes, wanted); // whole pages, up to one that nobody can read now
		if (got < 0)
			return (int)got;
		for (size_t at = 0; at < (size_t)got; at += page) {
			if (memcmp(in->bytes + at, shadow + at, page) == 0)
				continue;
			in->n = dt_runs_append(in->out, in->n, (struct dt_run){start + at, start + at + page});
			if (in->arm)
				memcpy(shadow + at, in->bytes + at, page);
		}
		start += (size_t)got < wanted ? (size_t)got + page : wanted;
	}
	return 0;
}

// The same for what is populated of it only: the rest is as it was when nobody had touched it.
static int compare_populated(struct comparison *in, const struct dt_chunk *chunk, uint64_t start, uint64_t stop)
{
	uint32_t page_shift = in->backend->page_shift;
	uint64_t entries[DT_CHUNK_PAGES], pages = (stop - start) >> page_shift;
	ssize_t bytes = (ssize_t)(pages * sizeof *entries);
	off_t place = (off_t)((start >> page_shift) * sizeof *entries);
	ssize_t got = pread(in->backend->pagemap, entries, (size_t)bytes, place);
	if (got != bytes)
		return got < 0 ? -errno : -EIO;
	for (uint64_t from = 0, to; from < pages; from = to + 1) {
		to = from;
		while (to < pages && entries[to] >> 62) // present, or swapped out (pagemap.rst)
			to++;
		int error = compare_range(in, chunk, start + (from << page_shift), start + (to << page_shift));
		if (error)
			return error;
	}
	return 0;
}

static long scan(struct dt_backend *backend, struct dt_scan_context *context, const struct dt_span *span,
		 enum dt_scan_mode mode, struct dt_run *out)
{
	const struct dt_chunks *shadows = shadows_of(backend);
	bool sparse = span->sparse && backend->pagemap >= 0;
	int error = dt_make_room(&context->bytes, &context->byte_room, BUFFER, 1);
	struct comparison in = {backend, context->bytes, mode != DT_LOOK, out, 0};
	for (size_t i = dt_chunks_find(shadows, span->start); !error && i < shadows->count; i++) {
		const struct dt_chunk *chunk = &shadows->chunks[i];
		if (chunk->start >= span->stop)
			break;
		struct dt_run part =
			dt_run_clip((struct dt_run){span->start, span->stop}, dt_chunk_range(shadows, chunk));
		error = (sparse ? compare_populated : compare_range)(&in, chunk, part.start, part.stop);
	}
	return error ? error : (long)in.n;
}

static bool is_mapped(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	(void)backend;
	return dt_mapped(start, stop - start) == 0;
}

// What the scan saw is what the next one compares with: a copy of it, unlike one of the memory, can't hold a store that
// is undone before anybody looks again. What is not tracked any more is taken from the memory, as without a copy.
static int contents(const struct dt_backend *backend, uint64_t start, uint64_t bytes, uint8_t *to,
		    uint64_t *refused_ret)
{
	const uint64_t page = 1ULL << backend->page_shift;
	int error = 0;
	while (bytes && !error) {
		uint64_t left = page - (start & (page - 1)), count = left < bytes ? left : bytes;
		const struct dt_chunk *chunk = dt_chunks_holding(shadows_of(backend), start);
		if (chunk)
			memcpy(to, (const uint8_t *)chunk->block + (start - chunk->start), count);
		else
			error = dt_copy_from(start, to, count, refused_ret);
		start += count;
		to += count;
		bytes -= count;
	}
	return error;
}

const struct dt_backend_ops dt_backend_compare = {
	.call = "process_vm_readv",
	.open = open_compare,
	.free = free_compare,
	.add = add,
	.remove = remove_range,
	.scan = scan,
	.still_ours = is_mapped,
	.still_ours_after_scan = is_mapped,
	.contents = contents,
};

int dt_session_open_compare(int pagemap, struct dt_session **session_ret, uint64_t *cursor_ret)
{
	const struct dt_backend backend = {.ops = &dt_backend_compare, .userfaultfd = -1, .pagemap = pagemap};
	return dt_open_session(&backend, session_ret, cursor_ret);
}
