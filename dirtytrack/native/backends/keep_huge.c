// The thread of a session, and which chunks it puts back.
#include "keep_huge.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "../base/clock.h"
#include "../base/memory.h"
#include "../kernel/abi.h"
#include "huge.h"

enum { REST = 3 }; // times as long as putting a chunk back took: a fourth of a processor at most

static bool is_cold(const struct dt_chunk *chunk)
{
	bool all = true;
	for (size_t i = 0; i < DT_CHUNK_PAGES / 64; i++)
		all &= chunk->held[i] == UINT64_MAX;
	return all && dt_split_is_cold(dt_split_of(chunk));
}

// Whether a cold chunk can go back now; else it waits for more scans.
static bool is_ready(struct dt_huge *huge, const struct dt_chunk *chunk)
{
	struct dt_run range = dt_chunk_range(&huge->chunks, chunk);
	struct dt_split *split = dt_split_of(chunk);
	bool is_written, can = huge->plain.ops->still_ours(&huge->plain, range.start, range.stop) &&
			       dt_can_collapse(&huge->plain, range.start, &is_written);
	if (!can)
		dt_split_refused(split, huge->waits);
	else if (is_written)
		split->quiet = 0;
	else if (dt_is_on_huge_page(&huge->plain, range.start)) // somebody else's doing
		split->mapped = DT_ON_HUGE_PAGE;
	return can && !is_written && split->mapped == DT_SPLIT;
}

// Begins with the next cold chunk. False: there is none, so that a scan has to wake the thread.
static bool begin(struct dt_huge *huge)
{
	const struct dt_chunks *chunks = &huge->chunks;
	size_t first = dt_chunks_find(chunks, huge->next);
	for (size_t n = 0; !huge->readers && n < chunks->count; n++) {
		const struct dt_chunk *chunk = &chunks->chunks[(first + n) % chunks->count];
		if (!is_cold(chunk) || !is_ready(huge, chunk))
			continue;
		struct dt_run range = dt_chunk_range(chunks, chunk);
		const struct dt_span span = {range.start, range.stop, chunks->page_shift,
					     dt_split_of(chunk)->kinds == 2};
		dt_collapse_begin(&huge->collapse, &span);
		huge->next = range.stop;
		return true;
	}
	huge->asleep = true;
	return false;
}

// The same, of the chunk that was to be copied meanwhile. While somebody reads it stays cold, to be tried again.
static bool open_chunk(struct dt_huge *huge, bool is_copied)
{
	const struct dt_chunk *chunk = dt_huge_on_its_way(huge);
	bool is_awaited = chunk && is_cold(chunk) && !huge->readers;
	if (is_awaited && is_copied && dt_collapse_open(&huge->collapse, &huge->plain))
		return true;
	huge->collapse.stage = DT_GROUNDED;
	if (is_awaited && is_copied)
		dt_split_of(chunk)->quiet = 0;
	else if (is_awaited)
		dt_split_refused(dt_split_of(chunk), huge->waits);
	return false;
}

// Notes whether the kernel has done it.
static void conclude(struct dt_huge *huge)
{
	const struct dt_chunk *chunk = dt_huge_on_its_way(huge);
	if (!chunk)
		return;
	struct dt_split *split = dt_split_of(chunk);
	if (!dt_is_on_huge_page(&huge->plain, chunk->start)) {
		dt_split_refused(split, huge->waits);
		return;
	}
	split->mapped = DT_ON_HUGE_PAGE;
	split->returned++;
}

static void put_back(struct dt_huge *huge)
{
	struct dt_lock *lock = &huge->session->lock;
	int error = dt_collapse_copy(&huge->collapse);
	if (dt_enter(lock))
		return;
	bool opened = open_chunk(huge, !error);
	dt_leave(lock, 0);
	if (!opened)
		return;
	dt_collapse_run(&huge->collapse);
	if (dt_enter(lock))
		return;
	bool armed = dt_collapse_arm(&huge->collapse, &huge->plain);
	conclude(huge);
	dt_leave(lock, 0);
	if (!armed)
		return;
	const struct dt_chunk_pages written = dt_collapse_compare(&huge->collapse);
	if (dt_enter(lock))
		return;
	if (huge->collapse.stage == DT_ARMED) {
		dt_huge_owe(huge, &written);
		huge->collapse.stage = DT_GROUNDED;
	}
	dt_leave(lock, 0);
}

static uint64_t work(void *context)
{
	struct dt_huge *huge = context;
	uint64_t begun = dt_now();
	if (dt_enter(&huge->session->lock))
		return DT_UNTIL_WOKEN;
	bool begins = begin(huge);
	dt_leave(&huge->session->lock, 0);
	if (!begins)
		return DT_UNTIL_WOKEN;
	put_back(huge);
	return REST * (dt_now() - begun);
}

// MADV_COLLAPSE of nothing does nothing, where there is one.
static int find_support(uint32_t page_shift)
{
	uint64_t page = 1ULL << page_shift;
	if (madvise((void *)page, 0, DT_MADV_COLLAPSE) < 0)
		return -EOPNOTSUPP;
	if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) > 0)
		return -EPERM;
	return page / sizeof(uint64_t) == DT_CHUNK_PAGES ? 0 : -E2BIG; // what a page table maps
}

static int keep(struct dt_session *session, struct dt_waits waits)
{
	struct dt_backend *backend = &session->backend;
	int error = find_support(backend->page_shift);
	struct dt_huge *huge = error ? NULL : dt_alloc(sizeof *huge);
	if (!huge)
		return error ? error : -ENOMEM;
	*huge = (struct dt_huge){
		.plain = *backend,
		.session = session,
		.waits = waits,
		.chunks = {.block_bytes = sizeof(struct dt_split), .page_shift = backend->page_shift},
	};
	backend->ops = &dt_backend_huge;
	backend->state = huge;
	error = dt_collapse_init(&huge->collapse, backend->page_shift);
	return error ? error : dt_worker_start(&session->worker, work, huge);
}

int dt_session_keep_huge_pages(struct dt_session *session, uint32_t first_wait, uint32_t most_wait)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	return dt_leave(&session->lock, keep(session, (struct dt_waits){first_wait, most_wait}));
}

int dt_session_huge_pages(struct dt_session *session, uint64_t start, uint64_t stop, struct dt_huge_pages *pages_ret)
{
	const struct dt_huge *huge = session->worker.context;
	*pages_ret = (struct dt_huge_pages){0};
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	bool is_busy = huge && huge->collapse.stage != DT_GROUNDED;
	for (size_t i = huge ? dt_chunks_find(&huge->chunks, start) : 0; huge && i < huge->chunks.count; i++) {
		const struct dt_chunk *chunk = &huge->chunks.chunks[i];
		const struct dt_split *split = dt_split_of(chunk);
		struct dt_run range = dt_chunk_range(&huge->chunks, chunk);
		if (range.stop > stop)
			break;
		if (range.start < start)
			continue;
		pages_ret->whole += split->mapped == DT_ON_HUGE_PAGE;
		pages_ret->split += split->mapped == DT_SPLIT;
		pages_ret->cold += is_cold(chunk) || (is_busy && chunk == dt_huge_on_its_way(huge));
		pages_ret->returned += split->returned;
	}
	return dt_leave(&session->lock, 0);
}
