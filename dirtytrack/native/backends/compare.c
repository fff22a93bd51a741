// The backend that compares: a copy of all tracked memory, and a look at every byte. It needs no support by the kernel,
// and sees whatever changed contents, by whom and by what way it may be.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../core/internal.h"
#include "chunks.h"

enum { BUFFER = 1 << 19 };

struct dt_compare {
	struct dt_chunks shadows; // a block is the contents as the last arming scan found them
	uint8_t *buffer;          // what is being compared: the memory itself may change meanwhile
};

static int open_compare(struct dt_session *session)
{
	struct dt_compare *compare = dt_alloc(sizeof *compare);
	if (!compare)
		return -ENOMEM;
	session->compare = compare;
	compare->shadows = (struct dt_chunks){
		.block_bytes = (size_t)DT_CHUNK_PAGES << session->page_shift,
		.page_shift = session->page_shift,
	};
	compare->buffer = dt_alloc(BUFFER);
	return compare->buffer ? 0 : -ENOMEM;
}

static void free_compare(struct dt_session *session)
{
	struct dt_compare *compare = session->compare;
	if (!compare)
		return;
	dt_chunks_free(&compare->shadows);
	dt_free(compare->buffer, BUFFER);
	dt_free(compare, sizeof *compare);
	session->compare = NULL;
}

static int add(struct dt_session *session, uint64_t start, uint64_t stop, bool *huge_ret, struct dt_failure *failure)
{
	*huge_ret = false;
	int error = dt_mapped(start, stop - start);
	*failure = (struct dt_failure){error ? "msync" : "mmap", start, stop};
	return error ? error : dt_chunks_hold(&session->compare->shadows, start, stop);
}

static int remove_range(struct dt_session *session, uint64_t start, uint64_t stop)
{
	dt_chunks_release(&session->compare->shadows, start, stop);
	return 0;
}

static size_t append(struct dt_run *out, size_t n, uint64_t start, uint64_t stop)
{
	if (n && out[n - 1].stop == start)
		out[n - 1].stop = stop;
	else
		out[n++] = (struct dt_run){start, stop};
	return n;
}

// Compares [from, to), which lies in one chunk. What can't be read is left for a scan that can.
static long compare_range(struct dt_session *session, const struct dt_chunk *chunk, uint64_t from, uint64_t to,
			  bool arm, struct dt_run *out, size_t n)
{
	const size_t page = (size_t)1 << session->page_shift;
	while (from < to) {
		size_t wanted = to - from < BUFFER ? to - from : BUFFER;
		uint8_t *buffer = session->compare->buffer, *shadow = (uint8_t *)chunk->block + (from - chunk->start);
		long got = dt_read_memory(from, buffer, wanted); // whole pages, up to one that nobody can read now
		if (got < 0)
			return got;
		for (size_t at = 0; at < (size_t)got; at += page) {
			if (memcmp(buffer + at, shadow + at, page) == 0)
				continue;
			n = append(out, n, from + at, from + at + page);
			if (arm)
				memcpy(shadow + at, buffer + at, page);
		}
		from += (size_t)got < wanted ? (size_t)got + page : wanted;
	}
	return (long)n;
}

// The same for what is populated of it only: the rest is as it was when nobody had touched it.
static long compare_populated(struct dt_session *session, const struct dt_chunk *chunk, uint64_t from, uint64_t to,
			      bool arm, struct dt_run *out, size_t n)
{
	uint64_t entries[DT_CHUNK_PAGES], pages = (to - from) >> session->page_shift, first = 0;
	ssize_t got = pread(session->pagemap, entries, pages * sizeof *entries,
			    (off_t)((from >> session->page_shift) * sizeof *entries));
	if (got != (ssize_t)(pages * sizeof *entries))
		return got < 0 ? -errno : -EIO;
	while (first < pages) {
		uint64_t last = first;
		while (last < pages && entries[last] >> 62) // present, or swapped out (pagemap.rst)
			last++;
		long result = compare_range(session, chunk, from + (first << session->page_shift),
					    from + (last << session->page_shift), arm, out, n);
		if (result < 0)
			return result;
		n = (size_t)result;
		first = last + 1;
	}
	return (long)n;
}

static long scan(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
		 enum dt_scan_mode mode, struct dt_run *out)
{
	const struct dt_chunks *shadows = &session->compare->shadows;
	bool sparse = kind->flags & DT_SPARSE && session->pagemap >= 0;
	long n = 0;
	for (size_t i = dt_chunks_find(shadows, start); i < shadows->count && n >= 0; i++) {
		const struct dt_chunk *chunk = &shadows->chunks[i];
		uint64_t end = dt_chunk_stop(shadows, chunk);
		if (chunk->start >= stop)
			break;
		uint64_t from = start > chunk->start ? start : chunk->start, to = stop < end ? stop : end;
		n = (sparse ? compare_populated : compare_range)(session, chunk, from, to, mode != DT_LOOK, out,
								 (size_t)n);
	}
	return n;
}

static bool is_mapped(struct dt_session *session, uint64_t start, uint64_t stop)
{
	(void)session;
	return dt_mapped(start, stop - start) == 0;
}

// What the scan saw is what the next one compares with: a copy of it, unlike one of the memory, can't hold a store that
// is undone before anybody looks again. What is not tracked any more is taken from the memory, as without a copy.
static void contents(struct dt_session *session, uint64_t start, uint64_t bytes, uint8_t *to)
{
	const struct dt_chunks *shadows = &session->compare->shadows;
	const uint64_t page = 1ULL << session->page_shift;
	while (bytes) {
		uint64_t left = page - (start & (page - 1)), count = left < bytes ? left : bytes;
		const struct dt_chunk *chunk = dt_chunks_holding(shadows, start);
		memcpy(to, chunk ? (const uint8_t *)chunk->block + (start - chunk->start) : (const uint8_t *)start,
		       count);
		start += count;
		to += count;
		bytes -= count;
	}
}

const struct dt_backend dt_backend_compare = {
	.call = "process_vm_readv",
	.open = open_compare,
	.free = free_compare,
	.add = add,
	.remove = remove_range,
	.scan = scan,
	.verify = is_mapped,
	.check = is_mapped,
	.contents = contents,
};
