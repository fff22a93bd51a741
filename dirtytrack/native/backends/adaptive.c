// The backend that leaves hot pages open. A page that is written in epoch after epoch costs a fault in each, and
// re-arming it buys nothing: it is left unprotected, which the kernel reports as written, and armed again now and then
// to see whether it still is. Where pages are so scattered, or re-arming single pages so dear, that this costs more
// than it saves, all are armed as ever.
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../core/internal.h"
#include "heat.h"

struct dt_adaptive {
	struct dt_chunks chunks;
	double fault_ns; // what a first store to an armed page costs
	double arm_ns;   // what arming one run of pages costs, of late
	double least_arm_ns;
	struct dt_run *found; // by one scan of the kernel
	size_t found_room;
};

static const struct dt_backend *plain = &dt_backend_wp_async;

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

// Both costs, by trying: they differ by ten between machines, and by more under emulation.
static void measure(struct dt_session *session)
{
	enum { PAGES = 64 };
	struct dt_adaptive *adaptive = session->adaptive;
	size_t page = (size_t)1 << session->page_shift;
	uint64_t ioctls;
	char *memory =
		mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		return;
	uint64_t start = (uintptr_t)memory;
	if (dt_uffd_register(session->userfaultfd, start, PAGES * page, &ioctls) == 0) {
		uint64_t begun = now();
		for (size_t i = 0; i < PAGES; i++)
			dt_uffd_writeprotect(session->userfaultfd, start + i * page, page, 1);
		uint64_t armed = now();
		for (size_t i = 0; i < PAGES; i++)
			*(volatile char *)(memory + i * page) = 1;
		adaptive->fault_ns = (double)(now() - armed) / PAGES;
		adaptive->arm_ns = adaptive->least_arm_ns = (double)(armed - begun) / PAGES;
		dt_uffd_unregister(session->userfaultfd, start, PAGES * page);
	}
	munmap(memory, PAGES * page);
}

int dt_session_adapt(struct dt_session *session)
{
	int error = dt_enter(session);
	if (error)
		return error;
	session->adaptive = dt_alloc(sizeof *session->adaptive);
	if (!session->adaptive)
		return dt_leave(session, -ENOMEM);
	*session->adaptive = (struct dt_adaptive){
		.chunks = {.block_bytes = sizeof(struct dt_heat), .page_shift = session->page_shift},
		.fault_ns = 700,
		.arm_ns = 400,
		.least_arm_ns = 400,
	};
	measure(session);
	session->backend = &dt_backend_adaptive;
	return dt_leave(session, 0);
}

static void free_adaptive(struct dt_session *session)
{
	if (!session->adaptive)
		return;
	dt_chunks_free(&session->adaptive->chunks);
	dt_free(session->adaptive->found, session->adaptive->found_room * sizeof(struct dt_run));
	dt_free(session->adaptive, sizeof *session->adaptive);
	session->adaptive = NULL;
}

static int add(struct dt_session *session, uint64_t start, uint64_t stop, bool *huge_ret, struct dt_failure *failure)
{
	int error = plain->add(session, start, stop, huge_ret, failure);
	return error ? error : dt_chunks_hold(&session->adaptive->chunks, start, stop);
}

static int remove_range(struct dt_session *session, uint64_t start, uint64_t stop)
{
	dt_chunks_release(&session->adaptive->chunks, start, stop);
	return plain->remove(session, start, stop);
}

static int arm_huge(struct dt_session *session, uint64_t start, uint64_t stop)
{
	return plain->arm_huge(session, start, stop);
}

static bool verify(struct dt_session *session, uint64_t start, uint64_t stop)
{
	return plain->verify(session, start, stop);
}

static bool check(struct dt_session *session, uint64_t start, uint64_t stop)
{
	return plain->check(session, start, stop);
}

// What stays open was not seen to be written: it is reported, and listed as assumed.
static int note_assumed(struct dt_session *session, const struct dt_part *part)
{
	struct dt_run found[DT_PART_RUNS];
	size_t n = dt_heat_assumed(part, found);
	int error = dt_grow(&session->assumed, &session->assumed_room, session->assumed_count + n,
			    sizeof *session->assumed);
	for (size_t i = 0; !error && i < n; i++)
		session->assumed_count = dt_run_append(session->assumed, session->assumed_count, found[i]);
	return error;
}

// Arms single runs, and learns what that costs.
static int arm_runs(struct dt_session *session, const struct dt_region *kind, const struct dt_run *runs, size_t n)
{
	struct dt_adaptive *adaptive = session->adaptive;
	struct dt_run found[DT_PART_RUNS];
	uint64_t begun = n ? now() : 0;
	for (size_t i = 0; i < n; i++) {
		long result = plain->scan(session, kind, runs[i].start, runs[i].stop, DT_ARM, found);
		if (result < 0)
			return (int)result;
	}
	if (n) { // being preempted once says nothing; interrupting other processors each time does, soon enough
		double took = (double)(now() - begun) / (double)n, most = 4 * adaptive->arm_ns;
		adaptive->arm_ns += ((took < most ? took : most) - adaptive->arm_ns) / 16;
	}
	return 0;
}

// Arms the whole part. To the n runs that a look has found it adds what was written since.
static long arm_part(struct dt_session *session, const struct dt_region *kind, const struct dt_part *part,
		     struct dt_run *runs, size_t n)
{
	struct dt_run range = dt_part_range(part), found[DT_PART_RUNS], looked[DT_PART_RUNS];
	long result = plain->scan(session, kind, range.start, range.stop, DT_ARM, found);
	if (result < 0)
		return result;
	memcpy(looked, runs, n * sizeof *runs);
	return (long)dt_runs_combine(DT_OR, looked, n, found, (size_t)result, runs);
}

// A look has found what was written in the part. Arms what is not to stay open: run by run, or all of it, if that costs
// less than the faults that it saves. Lists the written pages in runs; their number.
static long settle(struct dt_session *session, const struct dt_region *kind, const struct dt_part *part,
		   struct dt_run *runs)
{
	struct dt_adaptive *adaptive = session->adaptive;
	struct dt_run cold[DT_PART_RUNS];
	size_t open, cold_count = dt_heat_cold(part, cold, &open), n = dt_part_runs(part, runs);
	double saved = (double)open * adaptive->fault_ns * (255 - part->heat->unconfirmed) / 255;
	if ((double)cold_count * adaptive->arm_ns <= saved + adaptive->arm_ns) {
		int error = arm_runs(session, kind, cold, cold_count);
		dt_heat_left_open(part);
		return error ? error : (long)n;
	}
	long result = arm_part(session, kind, part, runs, n);
	dt_heat_armed(part);
	if (open) // else all of them were due for a test
		dt_heat_hold(part->heat);
	return result;
}

// The pages of [start, stop) that are in a chunk, with those of the runs from *next on that touch them.
static struct dt_part part_of(const struct dt_session *session, const struct dt_chunk *chunk, uint64_t start,
			      uint64_t stop, const struct dt_run **next, const struct dt_run *end)
{
	uint64_t chunk_stop = dt_chunk_stop(&session->adaptive->chunks, chunk);
	start = start > chunk->start ? start : chunk->start;
	stop = stop < chunk_stop ? stop : chunk_stop;
	while (*next < end && (*next)->stop <= start)
		++*next;
	struct dt_part part = {
		.chunk = chunk,
		.heat = chunk->block,
		.page_shift = session->page_shift,
		.first = (start - chunk->start) >> session->page_shift,
		.last = (stop - chunk->start) >> session->page_shift,
		.runs = *next,
		.end = *next,
	};
	while (part.end < end && part.end->start < stop)
		part.end++;
	return part;
}

// A scan of [start, stop) has found n runs, and armed all of them or none.
static int note(struct dt_session *session, uint64_t start, uint64_t stop, const struct dt_run *runs, size_t n,
		bool armed)
{
	const struct dt_chunks *chunks = &session->adaptive->chunks;
	const struct dt_run *end = runs + n;
	int error = 0;
	for (size_t i = dt_chunks_find(chunks, start); !error && i < chunks->count && chunks->chunks[i].start < stop;
	     i++) {
		struct dt_part part = part_of(session, &chunks->chunks[i], start, stop, &runs, end);
		error = note_assumed(session, &part);
		if (armed)
			dt_heat_armed(&part);
	}
	return error;
}

// Looks at chunks that have open pages, or soon will, and settles each.
static long look_and_settle(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
			    struct dt_run *out, size_t n)
{
	const struct dt_chunks *chunks = &session->adaptive->chunks;
	struct dt_run runs[DT_CHUNK_PAGES + 2];
	const struct dt_run *next = session->adaptive->found;
	long found = plain->scan(session, kind, start, stop, DT_LOOK, session->adaptive->found);
	if (found < 0)
		return found;
	const struct dt_run *end = next + found;
	for (size_t i = dt_chunks_find(chunks, start); i < chunks->count && chunks->chunks[i].start < stop; i++) {
		struct dt_part part = part_of(session, &chunks->chunks[i], start, stop, &next, end);
		long error = note_assumed(session, &part), count = error ? error : settle(session, kind, &part, runs);
		if (count < 0)
			return count;
		for (long run = 0; run < count; run++)
			n = dt_run_append(out, n, runs[run]);
	}
	return (long)n;
}

static long arm_everything(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
			   struct dt_run *out, size_t n)
{
	const struct dt_run *runs = session->adaptive->found;
	long found = plain->scan(session, kind, start, stop, DT_ARM, session->adaptive->found);
	if (found < 0)
		return found;
	for (long run = 0; run < found; run++)
		n = dt_run_append(out, n, runs[run]);
	int error = note(session, start, stop, runs, (size_t)found, true);
	return error ? error : (long)n;
}

// Where the chunks from the one of start on that are to be scanned alike end.
static uint64_t alike(const struct dt_chunks *chunks, uint64_t start, uint64_t stop, bool *looks_ret)
{
	size_t i = dt_chunks_find(chunks, start);
	*looks_ret = dt_heat_looks_first(chunks->chunks[i].block);
	while (i + 1 < chunks->count && chunks->chunks[i + 1].start < stop &&
	       dt_heat_looks_first(chunks->chunks[i + 1].block) == *looks_ret)
		i++;
	uint64_t end = dt_chunk_stop(chunks, &chunks->chunks[i]);
	return end < stop ? end : stop;
}

static long scan(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
		 enum dt_scan_mode mode, struct dt_run *out)
{
	struct dt_adaptive *adaptive = session->adaptive;
	long n = 0;
	session->assumed_count = 0;
	if (mode != DT_ARM || kind->page_shift != session->page_shift) {
		n = plain->scan(session, kind, start, stop, mode, out);
		if (n < 0 || kind->page_shift != session->page_shift)
			return n;
		int error = note(session, start, stop, out, (size_t)n, mode == DT_ARM_ALL);
		return error ? error : n;
	}
	uint64_t most = ((stop - start) >> session->page_shift) / 2 + 1;
	int error = dt_make_room(&adaptive->found, &adaptive->found_room, most, sizeof *adaptive->found);
	if (error)
		return error;
	// Others may have been running when it was last measured, and be gone now.
	adaptive->arm_ns -= (adaptive->arm_ns - adaptive->least_arm_ns) / 32;
	while (start < stop && n >= 0) {
		bool looks;
		uint64_t next = alike(&adaptive->chunks, start, stop, &looks);
		n = (looks ? look_and_settle : arm_everything)(session, kind, start, next, out, (size_t)n);
		start = next;
	}
	return n;
}

const struct dt_backend dt_backend_adaptive = {
	.call = "PAGEMAP_SCAN",
	.free = free_adaptive,
	.add = add,
	.remove = remove_range,
	.arm_huge = arm_huge,
	.scan = scan,
	.verify = verify,
	.check = check,
};
