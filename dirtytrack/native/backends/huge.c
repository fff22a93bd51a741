// What scans are told. A page that comparing has found written is armed already: its chunk owes it, until a scan has
// reported it. So it reaches every cursor the way that any page does.
#include "huge.h"

#include <string.h>

#include "../base/memory.h"
#include "../base/patience.h"
#include "layer.h"

static struct dt_huge *huge_of(const struct dt_backend *backend)
{
	return backend->state;
}

const struct dt_chunk *dt_huge_on_its_way(const struct dt_huge *huge)
{
	uint64_t start = huge->collapse.chunk.start;
	size_t i = dt_chunks_find(&huge->chunks, start);
	return i < huge->chunks.count && huge->chunks.chunks[i].start == start ? &huge->chunks.chunks[i] : NULL;
}

static void wake(struct dt_huge *huge)
{
	if (!huge->asleep)
		return;
	huge->asleep = false;
	dt_worker_wake(&huge->session->worker);
}

void dt_huge_owe(struct dt_huge *huge, const struct dt_chunk_pages *written)
{
	const struct dt_chunk *chunk = dt_huge_on_its_way(huge);
	if (!chunk)
		return;
	bool did = dt_split_of(chunk)->owes;
	huge->owing += dt_split_owe(dt_split_of(chunk), written->words) - did;
}

// Ends what is on its way, if it is open in [start, stop).
static void land(struct dt_huge *huge, uint64_t start, uint64_t stop)
{
	const struct dt_collapse *collapse = &huge->collapse;
	if (collapse->stage < DT_OPENED || collapse->chunk.stop <= start || stop <= collapse->chunk.start)
		return;
	dt_takes_copy(collapse->chunk.stop - collapse->chunk.start);
	const struct dt_chunk_pages written = dt_collapse_land(&huge->collapse, &huge->plain);
	dt_huge_owe(huge, &written);
}

// Takes the owed pages of a part of a chunk, or only lists them in out; the number of runs.
static size_t owed(struct dt_huge *huge, const struct dt_chunk *chunk, struct dt_run part, bool take,
		   struct dt_run *out)
{
	struct dt_split *split = dt_split_of(chunk);
	uint32_t shift = huge->chunks.page_shift;
	bool did = split->owes;
	size_t n = dt_split_owed(split, (part.start - chunk->start) >> shift, (part.stop - chunk->start) >> shift, take,
				 out);
	for (size_t i = 0; i < n; i++)
		out[i] = (struct dt_run){chunk->start + (out[i].start << shift), chunk->start + (out[i].stop << shift)};
	huge->owing -= did - split->owes;
	return n;
}

static void free_huge(struct dt_backend *backend)
{
	struct dt_huge *huge = huge_of(backend);
	if (!huge)
		return;
	if (huge->plain.ops->free)
		huge->plain.ops->free(&huge->plain);
	dt_chunks_free(&huge->chunks);
	dt_collapse_free(&huge->collapse, huge->plain.page_shift);
	dt_free(huge, sizeof *huge);
	backend->state = NULL;
}

// Registering a part of a huge page splits it, so that they are looked for before.
static int add(struct dt_backend *backend, uint64_t start, uint64_t stop, bool *huge_ret, struct dt_failure *failure)
{
	struct dt_huge *huge = huge_of(backend);
	int error = dt_chunks_hold(&huge->chunks, start, stop);
	for (size_t i = dt_chunks_find(&huge->chunks, start); !error && i < huge->chunks.count; i++) {
		const struct dt_chunk *chunk = &huge->chunks.chunks[i];
		if (chunk->start >= stop)
			break;
		if (dt_is_on_huge_page(&huge->plain, chunk->start))
			dt_split_of(chunk)->mapped = DT_ON_HUGE_PAGE;
	}
	if (!error)
		error = huge->plain.ops->add(&huge->plain, start, stop, huge_ret, failure);
	if (!error && *huge_ret) // the pool's, which are never split
		dt_chunks_release(&huge->chunks, start, stop);
	return error;
}

static int remove_range(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	struct dt_huge *huge = huge_of(backend);
	struct dt_run gone[DT_CHUNK_PAGES / 2 + 1];
	land(huge, start, stop);
	for (size_t i = dt_chunks_find(&huge->chunks, start); huge->owing && i < huge->chunks.count; i++) {
		const struct dt_chunk *chunk = &huge->chunks.chunks[i];
		if (chunk->start >= stop)
			break;
		owed(huge, chunk, dt_run_clip((struct dt_run){start, stop}, dt_chunk_range(&huge->chunks, chunk)), true,
		     gone);
	}
	dt_chunks_release(&huge->chunks, start, stop);
	return huge->plain.ops->remove(&huge->plain, start, stop);
}

static void disarm(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	land(huge_of(backend), start, stop);
	dt_layer_disarm(backend, start, stop);
}

static void read(struct dt_backend *backend, bool begins)
{
	struct dt_huge *huge = huge_of(backend);
	land(huge, 0, UINT64_MAX);
	if (begins)
		huge->readers++;
	else if (--huge->readers == 0)
		wake(huge);
}

// One scan on its way, and where it writes what it finds.
struct scanning {
	struct dt_huge *huge;
	struct dt_scan_context *context;
	struct dt_span span; // of whose kind every piece is
	enum dt_scan_mode mode;
	struct dt_run *out;
	size_t n; // runs in out
};

// Scans a piece behind those before it. 0 or -errno.
static int scan_piece(struct scanning *in, uint64_t start, uint64_t stop)
{
	struct dt_span piece = in->span;
	struct dt_run *out = in->out + in->n;
	piece.start = start;
	piece.stop = stop;
	long n = start < stop ? in->huge->plain.ops->scan(&in->huge->plain, in->context, &piece, in->mode, out) : 0;
	if (n < 0)
		return (int)n;
	bool touches = n > 0 && in->n > 0 && out[-1].stop == out->start;
	if (touches) {
		out[-1].stop = out->stop;
		memmove(out, out + 1, (size_t)(n - 1) * sizeof *out);
	}
	in->n += (size_t)n - touches;
	return 0;
}

// The same for a part of a chunk that owes pages.
static int scan_owing(struct scanning *in, const struct dt_chunk *chunk, struct dt_run part)
{
	struct dt_run found[DT_CHUNK_PAGES / 2 + 1], due[DT_CHUNK_PAGES / 2 + 1], all[DT_CHUNK_PAGES + 2];
	struct scanning apart = *in;
	apart.out = found;
	apart.n = 0;
	int error = scan_piece(&apart, part.start, part.stop);
	if (error)
		return error;
	size_t n = owed(in->huge, chunk, part, in->mode != DT_LOOK, due);
	n = dt_runs_combine(DT_OR, found, apart.n, due, n, all);
	for (size_t i = 0; i < n; i++)
		in->n = dt_runs_append(in->out, in->n, all[i]);
	return 0;
}

static int scan_all(struct scanning *in)
{
	const struct dt_chunks *chunks = &in->huge->chunks;
	const struct dt_run span = {in->span.start, in->span.stop};
	uint64_t at = span.start;
	int error = 0;
	for (size_t i = dt_chunks_find(chunks, at); !error && in->huge->owing && i < chunks->count; i++) {
		const struct dt_chunk *chunk = &chunks->chunks[i];
		struct dt_run part = dt_run_clip(span, dt_chunk_range(chunks, chunk));
		if (chunk->start >= span.stop)
			break;
		if (!dt_split_of(chunk)->owes)
			continue;
		error = scan_piece(in, at, part.start);
		if (!error)
			error = scan_owing(in, chunk, part);
		at = part.stop;
	}
	return error ? error : scan_piece(in, at, span.stop);
}

// Notes what a scan has found in each chunk.
static void note(struct scanning *in)
{
	struct dt_huge *huge = in->huge;
	const struct dt_run *run = in->out, *end = run + in->n;
	bool any_cold = false;
	for (size_t i = dt_chunks_find(&huge->chunks, in->span.start); i < huge->chunks.count; i++) {
		const struct dt_chunk *chunk = &huge->chunks.chunks[i];
		struct dt_split *split = dt_split_of(chunk);
		struct dt_run range = dt_chunk_range(&huge->chunks, chunk);
		if (range.start >= in->span.stop)
			break;
		split->kinds |= in->span.sparse ? 2 : 1;
		while (run < end && run->stop <= range.start)
			run++;
		if (run < end && run->start < range.stop) {
			bool all = run->start <= range.start && range.stop <= run->stop;
			dt_split_written(split, huge->waits, all && dt_is_on_huge_page(&huge->plain, range.start));
		} else {
			any_cold |= dt_split_quiet(split);
		}
	}
	if (any_cold)
		wake(huge);
}

static long scan(struct dt_backend *backend, struct dt_scan_context *context, const struct dt_span *span,
		 enum dt_scan_mode mode, struct dt_run *out)
{
	struct dt_huge *huge = huge_of(backend);
	struct scanning in = {huge, context, *span, mode, out, 0};
	land(huge, span->start, span->stop);
	int error = scan_all(&in);
	if (!error)
		note(&in);
	return error ? error : (long)in.n;
}

const struct dt_backend_ops dt_backend_huge = {
	.call = "PAGEMAP_SCAN",
	.free = free_huge,
	.add = add,
	.remove = remove_range,
	.arm_huge = dt_layer_arm_huge,
	.arm_first = dt_layer_arm_first,
	.disarm = disarm,
	.scan = scan,
	.still_ours = dt_layer_still_ours,
	.still_ours_after_scan = dt_layer_still_ours_after_scan,
	.read = read,
};
