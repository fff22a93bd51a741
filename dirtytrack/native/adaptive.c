// The backend that leaves hot pages open. A page that is written in epoch after epoch costs a fault in each, and re-arming
// it buys nothing: it is left unprotected, which the kernel reports as written, and armed again now and then to see
// whether it still is. Where pages are so scattered, or re-arming single pages so dear, that this costs more than it saves,
// all are armed as ever.
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "chunks.h"
#include "internal.h"

// What is known of a page, in a byte.
enum {
	COLD = 0,      // armed, and not found written by the last scan
	CANDIDATE = 2, // armed, and found written by so many scans in a row; at the next one it is opened
	TESTED = 8,    // armed after it was open; + its level
	OPEN = 64,     // not armed; + AGES * its level + the scans since it was opened
	AGES = 32,
	TOP_LEVEL = 4, // a page is tested after 2 << level scans: 2, 4, 8, 16, 32
	LONGEST_HOLD = 64,
};

struct heat {
	uint8_t pages[DT_CHUNK_PAGES];
	uint16_t open;       // pages
	uint16_t candidates; // those that the next scan would open, if it finds them written
	uint16_t tested;
	uint8_t unconfirmed; // which share, of 256, of the tested pages were not written, of late
	uint8_t is_warm;     // some page is not cold
	uint8_t hold;        // scans in which none is opened: it did not pay
	uint8_t next_hold;
};

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
	char *memory = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
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
		.chunks = {.block_bytes = sizeof(struct heat), .page_shift = session->page_shift},
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

// Pages of a chunk that a scan covers, as numbers in the chunk, and the scan's runs that may touch them.
struct part {
	const struct dt_chunk *chunk;
	struct heat *heat;
	size_t first, last;
	const struct dt_run *runs, *end;
};

static uint8_t level_of(uint8_t state)
{
	return state >= OPEN ? (state - OPEN) / AGES : state - TESTED;
}

// A page that was found written: what it becomes. It stays open, or is opened, if that is OPEN or more.
static uint8_t heated(uint8_t state)
{
	if (state < CANDIDATE)
		return state + 1;
	if (state == CANDIDATE)
		return OPEN;
	if (state < OPEN)
		return OPEN + AGES * (level_of(state) < TOP_LEVEL ? level_of(state) + 1 : TOP_LEVEL);
	uint8_t level = level_of(state);
	return (state - OPEN) % AGES + 1 < 2 << level ? state + 1 : TESTED + level;
}

// The same where all pages are armed.
static uint8_t armed(uint8_t state)
{
	return state >= OPEN ? TESTED + level_of(state) : state < CANDIDATE ? state + 1 : state;
}

static uint64_t clip(const struct dt_session *session, const struct part *part, uint64_t address, size_t low)
{
	uint64_t start = part->chunk->start + ((uint64_t)low << session->page_shift);
	uint64_t page = address > start ? (address - part->chunk->start) >> session->page_shift : low;
	return page < part->last ? page : part->last;
}

static void count(struct heat *heat, uint8_t state)
{
	heat->open += state >= OPEN;
	heat->candidates += state >= CANDIDATE && state < OPEN;
	heat->tested += state >= TESTED && state < OPEN;
	heat->is_warm |= state != COLD;
}

// Gives every page of the part its next state: written pages by the function; the others become cold.
static void update(const struct dt_session *session, const struct part *part, uint8_t (*next)(uint8_t))
{
	struct heat *heat = part->heat;
	if (!heat->is_warm && part->runs == part->end)
		return;
	size_t tested = heat->tested, confirmed = 0;
	heat->open = heat->candidates = heat->tested = heat->is_warm = 0;
	for (size_t page = 0; page < part->first; page++)
		count(heat, heat->pages[page]);
	for (size_t page = part->last; page < DT_CHUNK_PAGES; page++)
		count(heat, heat->pages[page]);
	size_t page = part->first, written = 0;
	for (const struct dt_run *run = part->runs; run < part->end; run++) {
		size_t start = clip(session, part, run->start, page), stop = clip(session, part, run->stop, start);
		memset(heat->pages + page, COLD, start - page);
		for (page = start; page < stop; page++) {
			confirmed += heat->pages[page] >= TESTED && heat->pages[page] < OPEN;
			count(heat, heat->pages[page] = next(heat->pages[page]));
		}
		written += stop - start;
	}
	memset(heat->pages + page, COLD, part->last - page);
	if (tested)
		heat->unconfirmed = (uint8_t)((heat->unconfirmed + 255 * (tested - confirmed) / tested) / 2);
	if (2 * heat->candidates < written) // where writes are random, some pages are written twice: not worth a look
		heat->candidates = 0;
}

static void append(struct dt_run *out, size_t *n, struct dt_run run)
{
	if (*n && out[*n - 1].stop >= run.start)
		out[*n - 1].stop = run.stop > out[*n - 1].stop ? run.stop : out[*n - 1].stop;
	else
		out[(*n)++] = run;
}

// What stays open was not seen to be written: it is reported, and listed as assumed.
static int note_open(struct dt_session *session, const struct part *part)
{
	if (!part->heat->open)
		return 0;
	size_t most = session->assumed_count + DT_CHUNK_PAGES / 2;
	int error = dt_grow(&session->assumed, &session->assumed_room, most, sizeof *session->assumed);
	size_t page = part->first;
	for (const struct dt_run *run = part->runs; !error && run < part->end; run++) {
		size_t start = clip(session, part, run->start, page), stop = clip(session, part, run->stop, start);
		for (page = start; page < stop; page++) {
			uint64_t address = part->chunk->start + ((uint64_t)page << session->page_shift);
			if (part->heat->pages[page] >= OPEN)
				append(session->assumed, &session->assumed_count,
				       (struct dt_run){address, address + (1ULL << session->page_shift)});
		}
	}
	return error;
}

// Calls act on each chunk of [start, stop), with those of the runs that touch it.
static long for_each_part(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
			  const struct dt_run *runs, size_t n, struct dt_run *out, size_t out_count,
			  long (*act)(struct dt_session *, const struct dt_region *, const struct part *, struct dt_run *,
				      size_t))
{
	struct dt_chunks *chunks = &session->adaptive->chunks;
	const struct dt_run *run = runs, *end = runs + n;
	long result = (long)out_count;
	for (size_t i = dt_chunks_find(chunks, start); result >= 0 && i < chunks->count; i++) {
		struct dt_chunk *chunk = &chunks->chunks[i];
		uint64_t from = start > chunk->start ? start : chunk->start, to = dt_chunk_stop(chunks, chunk);
		if (chunk->start >= stop)
			break;
		to = stop < to ? stop : to;
		while (run < end && run->stop <= from)
			run++;
		const struct dt_run *last = run;
		while (last < end && last->start < to)
			last++;
		struct part part = {chunk, chunk->block, (from - chunk->start) >> session->page_shift,
				    (to - chunk->start) >> session->page_shift, run, last};
		result = act(session, kind, &part, out, (size_t)result);
	}
	return result;
}

static long look_at(struct dt_session *session, const struct dt_region *kind, const struct part *part, struct dt_run *out,
		    size_t n)
{
	(void)kind, (void)out;
	int error = note_open(session, part);
	return error ? error : (long)n;
}

// All of it was armed.
static long arm_all(struct dt_session *session, const struct dt_region *kind, const struct part *part, struct dt_run *out,
		    size_t n)
{
	long result = look_at(session, kind, part, out, n);
	update(session, part, armed);
	part->heat->hold -= part->heat->hold > 0;
	return result;
}

// The written pages that would not stay open; counts those that would.
static size_t to_arm(const struct dt_session *session, const struct part *part, struct dt_run *out, size_t *open_ret)
{
	size_t n = 0, page = part->first, open = 0;
	for (const struct dt_run *run = part->runs; run < part->end; run++) {
		size_t start = clip(session, part, run->start, page), stop = clip(session, part, run->stop, start);
		for (page = start; page < stop; page++) {
			uint64_t address = part->chunk->start + ((uint64_t)page << session->page_shift);
			if (heated(part->heat->pages[page]) >= OPEN)
				open++;
			else
				append(out, &n, (struct dt_run){address, address + (1ULL << session->page_shift)});
		}
	}
	*open_ret = open;
	return n;
}

static long arm_runs(struct dt_session *session, const struct dt_region *kind, const struct dt_run *runs, size_t n)
{
	struct dt_adaptive *adaptive = session->adaptive;
	struct dt_run found[DT_CHUNK_PAGES / 2 + 1];
	uint64_t begun = n ? now() : 0;
	for (size_t i = 0; i < n; i++) {
		long result = plain->scan(session, kind, runs[i].start, runs[i].stop, DT_ARM, found);
		if (result < 0)
			return result;
	}
	if (n) { // being preempted once says nothing; interrupting other processors each time does, soon enough
		double took = (double)(now() - begun) / (double)n, most = 4 * adaptive->arm_ns;
		adaptive->arm_ns += ((took < most ? took : most) - adaptive->arm_ns) / 16;
	}
	return 0;
}

// Arms the whole part, also what was written since we looked.
static long arm_part(struct dt_session *session, const struct dt_region *kind, const struct part *part, struct dt_run *out,
		     size_t n)
{
	struct dt_run found[DT_CHUNK_PAGES / 2 + 1], looked[DT_CHUNK_PAGES / 2 + 1], both[DT_CHUNK_PAGES + 2];
	uint64_t start = part->chunk->start + ((uint64_t)part->first << session->page_shift);
	uint64_t stop = part->chunk->start + ((uint64_t)part->last << session->page_shift);
	size_t looked_count = 0;
	for (const struct dt_run *run = part->runs; run < part->end; run++)
		looked[looked_count++] = (struct dt_run){run->start > start ? run->start : start, run->stop < stop ? run->stop : stop};
	long result = plain->scan(session, kind, start, stop, DT_ARM, found);
	if (result < 0)
		return result;
	size_t count = dt_runs_combine(DT_OR, looked, looked_count, found, (size_t)result, both);
	for (size_t i = 0; i < count; i++)
		append(out, &n, both[i]);
	return (long)n;
}

// A look has found what was written in the part. Arms what is not to stay open: run by run, or all of it, if that costs
// less than the faults that it saves.
static long settle(struct dt_session *session, const struct dt_region *kind, const struct part *part, struct dt_run *out,
		   size_t n)
{
	struct dt_adaptive *adaptive = session->adaptive;
	struct dt_run runs[DT_CHUNK_PAGES / 2 + 1];
	struct heat *heat = part->heat;
	size_t open, to_be_armed = to_arm(session, part, runs, &open);
	long result = look_at(session, kind, part, out, n);
	if (result < 0)
		return result;
	double saved = (double)open * adaptive->fault_ns * (255 - heat->unconfirmed) / 255;
	if ((double)to_be_armed * adaptive->arm_ns > saved + adaptive->arm_ns) {
		if (open) // else all of them were due for a test
			heat->hold = heat->next_hold = heat->next_hold < LONGEST_HOLD / 2 ? 2 * heat->next_hold + 4 : LONGEST_HOLD;
		result = arm_part(session, kind, part, out, n);
		update(session, part, armed);
		return result;
	}
	result = arm_runs(session, kind, runs, to_be_armed);
	update(session, part, heated);
	for (const struct dt_run *run = part->runs; result >= 0 && run < part->end; run++) {
		uint64_t start = part->chunk->start + ((uint64_t)part->first << session->page_shift);
		uint64_t stop = part->chunk->start + ((uint64_t)part->last << session->page_shift);
		append(out, &n, (struct dt_run){run->start > start ? run->start : start, run->stop < stop ? run->stop : stop});
	}
	return result < 0 ? result : (long)n;
}

// Whether the next scan of a chunk is to look, and to arm what it finds run by run.
static bool looks_first(const struct heat *heat)
{
	return heat->open || (heat->candidates && !heat->hold);
}

// Where chunks that begin at an index, and are to be scanned alike, end.
static uint64_t alike(const struct dt_chunks *chunks, size_t index, uint64_t stop)
{
	bool looks = looks_first(chunks->chunks[index].block);
	while (index + 1 < chunks->count && chunks->chunks[index + 1].start < stop &&
	       looks_first(chunks->chunks[index + 1].block) == looks)
		index++;
	uint64_t end = dt_chunk_stop(chunks, &chunks->chunks[index]);
	return end < stop ? end : stop;
}

static long scan_alike(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
		       struct dt_run *out, size_t n)
{
	struct dt_adaptive *adaptive = session->adaptive;
	bool looks = looks_first(adaptive->chunks.chunks[dt_chunks_find(&adaptive->chunks, start)].block);
	long found = plain->scan(session, kind, start, stop, looks ? DT_LOOK : DT_ARM, adaptive->found);
	if (found < 0)
		return found;
	if (looks)
		return for_each_part(session, kind, start, stop, adaptive->found, (size_t)found, out, n, settle);
	for (long i = 0; i < found; i++)
		append(out, &n, adaptive->found[i]);
	return for_each_part(session, kind, start, stop, adaptive->found, (size_t)found, out, n, arm_all);
}

static long scan(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
		 enum dt_scan_mode mode, struct dt_run *out)
{
	struct dt_adaptive *adaptive = session->adaptive;
	long n = 0;
	session->assumed_count = 0;
	if (kind->page_shift != session->page_shift)
		return plain->scan(session, kind, start, stop, mode, out);
	if (mode != DT_ARM) {
		n = plain->scan(session, kind, start, stop, mode, out);
		return n < 0 ? n : for_each_part(session, kind, start, stop, out, (size_t)n, NULL, (size_t)n,
						 mode == DT_LOOK ? look_at : arm_all);
	}
	uint64_t most = ((stop - start) >> session->page_shift) / 2 + 1;
	int error = dt_make_room(&adaptive->found, &adaptive->found_room, most, sizeof *adaptive->found);
	if (error)
		return error;
	if (adaptive->arm_ns > adaptive->least_arm_ns) // others may have been running then, and be gone now
		adaptive->arm_ns -= (adaptive->arm_ns - adaptive->least_arm_ns) / 32;
	while (start < stop && n >= 0) {
		uint64_t next = alike(&adaptive->chunks, dt_chunks_find(&adaptive->chunks, start), stop);
		n = scan_alike(session, kind, start, next, out, (size_t)n);
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
