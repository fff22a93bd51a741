// Whether to arm: what is open, what that saves, and what arming single runs costs.
#include "adaptive.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "../base/array.h"
#include "../base/clock.h"
#include "../base/memory.h"
#include "../kernel/userfaultfd.h"
#include "chunks.h"
#include "heat.h"
#include "layer.h"

struct dt_adaptive {
	struct dt_backend plain; // below; does the scans; its descriptors are those of the session's backend
	struct dt_chunks chunks; // a block is a struct dt_heat
	double fault_ns;         // what a first store to an armed page costs
	double arm_ns;           // what arming one run of pages costs, of late
	double least_arm_ns;
};

static struct dt_adaptive *adaptive_of(const struct dt_backend *backend)
{
	return backend->state;
}

// Both costs, by trying: they differ by ten between machines, and by more under emulation.
static void measure(struct dt_adaptive *adaptive)
{
	enum { PAGES = 64 };
	int userfaultfd = adaptive->plain.userfaultfd;
	size_t page = (size_t)1 << adaptive->plain.page_shift;
	uint64_t ioctls;
	char *memory =
		mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		return;
	uint64_t start = (uintptr_t)memory;
	if (dt_uffd_register(userfaultfd, start, PAGES * page, DT_REGISTER_WP, &ioctls) == 0) {
		uint64_t begun = dt_now();
		for (size_t i = 0; i < PAGES; i++)
			dt_uffd_writeprotect(userfaultfd, start + i * page, page, 1);
		uint64_t armed = dt_now();
		for (size_t i = 0; i < PAGES; i++)
			*(volatile char *)(memory + i * page) = 1;
		adaptive->fault_ns = (double)(dt_now() - armed) / PAGES;
		adaptive->arm_ns = adaptive->least_arm_ns = (double)(armed - begun) / PAGES;
		dt_uffd_unregister(userfaultfd, start, PAGES * page);
	}
	munmap(memory, PAGES * page);
}

static void free_adaptive(struct dt_backend *backend)
{
	struct dt_adaptive *adaptive = adaptive_of(backend);
	if (!adaptive)
		return;
	if (adaptive->plain.ops->free)
		adaptive->plain.ops->free(&adaptive->plain);
	dt_chunks_free(&adaptive->chunks);
	dt_free(adaptive, sizeof *adaptive);
	backend->state = NULL;
}

static int add(struct dt_backend *backend, uint64_t start, uint64_t stop, bool *huge_ret, struct dt_failure *failure)
{
	struct dt_adaptive *adaptive = adaptive_of(backend);
	int error = adaptive->plain.ops->add(&adaptive->plain, start, stop, huge_ret, failure);
	return error ? error : dt_chunks_hold(&adaptive->chunks, start, stop);
}

static int remove_range(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	struct dt_adaptive *adaptive = adaptive_of(backend);
	dt_chunks_release(&adaptive->chunks, start, stop);
	return adaptive->plain.ops->remove(&adaptive->plain, start, stop);
}

// One scan on its way: what it needs, and where it writes what it finds.
struct scanning {
	struct dt_adaptive *adaptive;
	struct dt_scan_context *context;
	struct dt_span whole; // of whose kind every piece is
	struct dt_run *out;
	size_t n; // runs in out
};

static long scan_plainly(const struct scanning *in, struct dt_run piece, enum dt_scan_mode mode, struct dt_run *out)
{
	struct dt_backend *plain = &in->adaptive->plain;
	struct dt_span span = in->whole;
	span.start = piece.start;
	span.stop = piece.stop;
	return plain->ops->scan(plain, in->context, &span, mode, out);
}

static void report(struct scanning *in, const struct dt_run *runs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		in->n = dt_runs_append(in->out, in->n, runs[i]);
}

// What stays open was not seen to be written: it is reported, and listed as assumed.
static int note_assumed(struct dt_scan_context *context, const struct dt_part *part)
{
	struct dt_run found[DT_PART_RUNS];
	struct dt_run_buffer *assumed = &context->assumed;
	size_t n = dt_heat_assumed(part, found);
	int error = dt_grow(&assumed->runs, &assumed->room, context->assumed_count + n, sizeof *assumed->runs);
	for (size_t i = 0; !error && i < n; i++)
		context->assumed_count = dt_runs_append(assumed->runs, context->assumed_count, found[i]);
	return error;
}

// Arms single runs, and learns what that costs.
static int arm_runs(const struct scanning *in, const struct dt_run *runs, size_t n)
{
	struct dt_adaptive *adaptive = in->adaptive;
	struct dt_run found[DT_PART_RUNS];
	uint64_t begun = n ? dt_now() : 0;
	for (size_t i = 0; i < n; i++) {
		long result = scan_plainly(in, runs[i], DT_ARM, found);
		if (result < 0)
			return (int)result;
	}
	if (n) { // being preempted once says nothing; interrupting other processors each time does, soon enough
		double took = (double)(dt_now() - begun) / (double)n, most = 4 * adaptive->arm_ns;
		adaptive->arm_ns += ((took < most ? took : most) - adaptive->arm_ns) / 16;
	}
	return 0;
}

// Arms the whole part. To the n runs that a look has found it adds what was written since.
static long arm_part(const struct scanning *in, const struct dt_part *part, struct dt_run *runs, size_t n)
{
	struct dt_run found[DT_PART_RUNS], looked[DT_PART_RUNS];
	long result = scan_plainly(in, dt_part_range(part), DT_ARM, found);
	if (result < 0)
		return result;
	memcpy(looked, runs, n * sizeof *runs);
	return (long)dt_runs_combine(DT_OR, looked, n, found, (size_t)result, runs);
}

// A look has found what was written in the part. Arms what is not to stay open: run by run, or all of it, if that costs
// less than the faults that it saves. Lists the written pages in runs; their number.
static long settle(const struct scanning *in, const struct dt_part *part, struct dt_run *runs)
{
	const struct dt_adaptive *adaptive = in->adaptive;
	struct dt_run cold[DT_PART_RUNS];
	size_t open, cold_count = dt_heat_cold(part, cold, &open), n = dt_part_runs(part, runs);
	double saved = (double)open * adaptive->fault_ns * (255 - part->heat->unconfirmed) / 255;
	if ((double)cold_count * adaptive->arm_ns <= saved + adaptive->arm_ns) {
		int error = arm_runs(in, cold, cold_count);
		dt_heat_left_open(part);
		return error ? error : (long)n;
	}
	long result = arm_part(in, part, runs, n);
	dt_heat_armed(part);
	if (open) // else all of them were due for a test
		dt_heat_hold(part->heat);
	return result;
}

// The pages of a piece that are in a chunk, with those of the runs from *next on that touch them.
static struct dt_part part_of(const struct dt_chunks *chunks, const struct dt_chunk *chunk, struct dt_run piece,
			      const struct dt_run **next, const struct dt_run *end)
{
	piece = dt_run_clip(piece, dt_chunk_range(chunks, chunk));
	while (*next < end && (*next)->stop <= piece.start)
		++*next;
	struct dt_part part = {
		.chunk = chunk,
		.heat = chunk->block,
		.page_shift = chunks->page_shift,
		.start = (piece.start - chunk->start) >> chunks->page_shift,
		.stop = (piece.stop - chunk->start) >> chunks->page_shift,
		.runs = *next,
		.end = *next,
	};
	while (part.end < end && part.end->start < piece.stop)
		part.end++;
	return part;
}

// A scan of a piece has found n runs, and armed all of them or none.
static int note(const struct scanning *in, struct dt_run piece, const struct dt_run *runs, size_t n, bool armed)
{
	const struct dt_chunks *chunks = &in->adaptive->chunks;
	const struct dt_run *end = runs + n;
	int error = 0;
	for (size_t i = dt_chunks_find(chunks, piece.start); !error && i < chunks->count; i++) {
		if (chunks->chunks[i].start >= piece.stop)
			break;
		struct dt_part part = part_of(chunks, &chunks->chunks[i], piece, &runs, end);
		error = note_assumed(in->context, &part);
		if (armed)
			dt_heat_armed(&part);
	}
	return error;
}

// Looks at chunks that have open pages, or soon will, and settles each.
static int look_and_settle(struct scanning *in, struct dt_run piece)
{
	const struct dt_chunks *chunks = &in->adaptive->chunks;
	struct dt_run runs[DT_CHUNK_PAGES + 2];
	const struct dt_run *next = in->context->looked.runs;
	long found = scan_plainly(in, piece, DT_LOOK, in->context->looked.runs);
	if (found < 0)
		return (int)found;
	const struct dt_run *end = next + found;
	for (size_t i = dt_chunks_find(chunks, piece.start); i < chunks->count; i++) {
		if (chunks->chunks[i].start >= piece.stop)
			break;
		struct dt_part part = part_of(chunks, &chunks->chunks[i], piece, &next, end);
		int error = note_assumed(in->context, &part);
		long count = error ? error : settle(in, &part, runs);
		if (count < 0)
			return (int)count;
		report(in, runs, (size_t)count);
	}
	return 0;
}

static int arm_everything(struct scanning *in, struct dt_run piece)
{
	const struct dt_run *runs = in->context->looked.runs;
	long found = scan_plainly(in, piece, DT_ARM, in->context->looked.runs);
	if (found < 0)
		return (int)found;
	report(in, runs, (size_t)found);
	return note(in, piece, runs, (size_t)found, true);
}

// The piece from start on whose chunks are to be scanned alike: looked at first, or armed at once.
static struct dt_run next_piece(const struct dt_chunks *chunks, uint64_t start, uint64_t stop, bool *looks_ret)
{
	size_t i = dt_chunks_find(chunks, start);
	*looks_ret = dt_heat_looks_first(chunks->chunks[i].block);
	while (i + 1 < chunks->count && chunks->chunks[i + 1].start < stop &&
	       dt_heat_looks_first(chunks->chunks[i + 1].block) == *looks_ret)
		i++;
	uint64_t end = dt_chunk_range(chunks, &chunks->chunks[i]).stop;
	return (struct dt_run){start, end < stop ? end : stop};
}

static long scan(struct dt_backend *backend, struct dt_scan_context *context, const struct dt_span *span,
		 enum dt_scan_mode mode, struct dt_run *out)
{
	struct dt_adaptive *adaptive = adaptive_of(backend);
	struct scanning in = {adaptive, context, *span, out, 0};
	bool huge = span->page_shift != backend->page_shift; // pages that are never left open
	context->assumed_count = 0;
	if (mode != DT_ARM || huge) {
		struct dt_run all = {span->start, span->stop};
		long n = scan_plainly(&in, all, mode, out);
		int error = n < 0 || huge ? 0 : note(&in, all, out, (size_t)n, mode == DT_ARM_ALL);
		return error ? error : n;
	}
	int error = dt_run_buffer_fit(&context->looked, (span->stop - span->start) >> backend->page_shift);
	// Others may have been running when it was last measured, and be gone now.
	adaptive->arm_ns -= (adaptive->arm_ns - adaptive->least_arm_ns) / 32;
	for (uint64_t start = span->start; !error && start < span->stop;) {
		bool looks;
		struct dt_run piece = next_piece(&adaptive->chunks, start, span->stop, &looks);
		error = (looks ? look_and_settle : arm_everything)(&in, piece);
		start = piece.stop;
	}
	return error ? error : (long)in.n;
}

static const struct dt_backend_ops dt_backend_adaptive = {
	.call = "PAGEMAP_SCAN",
	.assumes = true,
	.free = free_adaptive,
	.add = add,
	.remove = remove_range,
	.arm_huge = dt_layer_arm_huge,
	.arm_first = dt_layer_arm_first,
	.disarm = dt_layer_disarm,
	.scan = scan,
	.still_ours = dt_layer_still_ours,
	.still_ours_after_scan = dt_layer_still_ours_after_scan,
	.read = dt_layer_read,
};

static int adapt(struct dt_backend *backend)
{
	struct dt_adaptive *adaptive = dt_alloc(sizeof *adaptive);
	if (!adaptive)
		return -ENOMEM;
	*adaptive = (struct dt_adaptive){
		.plain = *backend,
		.chunks = {.block_bytes = sizeof(struct dt_heat), .page_shift = backend->page_shift},
		.fault_ns = 700,
		.arm_ns = 400,
		.least_arm_ns = 400,
	};
	measure(adaptive);
	backend->ops = &dt_backend_adaptive;
	backend->state = adaptive;
	return 0;
}

int dt_session_adapt(struct dt_session *session)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	return dt_leave(&session->lock, adapt(&session->backend));
}
