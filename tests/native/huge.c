// A chunk on its way back to a huge page: each step in turn, with stores and looks between them, against a model; and
// the thread that does it, beside others.
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>

#include "backends/adaptive.h"
#include "backends/huge.h"
#include "backends/keep_huge.h"
#include "driver.h"
#include "snapshot/copies.h"
#include "snapshot/mirror.h"

enum { CURSORS = 2, STEPS = 1500, NEVER = 1 << 30, CHUNKS = 2, CHUNK = DT_CHUNK_PAGES };

static char *chunk; // an aligned chunk of memory, all of it tracked; what follows is tracked, too
static struct dt_huge *huge;
static uint64_t tracked, cursors[CURSORS];
static bool due[CURSORS][CHUNKS * CHUNK];

static void map_chunks(void)
{
	uint64_t bytes = CHUNK * page_size;
	char *mapped = mmap(NULL, (CHUNKS + 1) * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(mapped != MAP_FAILED);
	chunk = mapped + (-(uintptr_t)mapped & (bytes - 1));
	madvise(chunk, CHUNKS * bytes, MADV_HUGEPAGE);
	memset(chunk, 1, CHUNKS * bytes);
}

static void unmap_chunks(void)
{
	munmap(chunk, CHUNKS * CHUNK * page_size);
}

// Waits that nothing outlasts keep the thread asleep.
static void begin(enum dt_hole_reporting holes, uint32_t wait, bool adaptive)
{
	struct dt_failure failure;
	memset(due, 0, sizeof due);
	session = open_tracker(holes);
	check(dt_session_keep_huge_pages(session, wait, wait) == 0);
	huge = session->worker.context;
	check(!adaptive || dt_session_adapt(session) == 0);
	check(dt_session_add(session, (uintptr_t)chunk, (uintptr_t)chunk + CHUNKS * CHUNK * page_size,
			     (uint32_t)page_shift, 0, &tracked, &failure) == 0);
	for (int i = 0; i < CURSORS; i++)
		check(dt_cursor_open(session, &cursors[i]) == 0);
}

static void store(uint64_t page)
{
	__atomic_add_fetch(chunk + page * page_size + page % 100, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < CURSORS; i++)
		due[i][page] = true;
}

// What a verb reports has to be what is due, no page more and no page less.
static void look(int i, int verb, uint64_t start, uint64_t stop)
{
	static bool found[CHUNKS * CHUNK];
	struct dt_slice slice = {tracked, start, stop};
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch && dt_collect(session, cursors[i], verb, &slice, 1, epoch) == 0);
	memset(found, 0, sizeof found);
	for (uint64_t run = 0; run < epoch->run_count; run++)
		for (uint64_t page = epoch->buffers.runs[run].start; page < epoch->buffers.runs[run].stop; page++)
			found[page] = true;
	for (uint64_t page = start; page < stop; page++)
		check(found[page] == due[i][page]);
	if (verb == DT_COLLECT)
		memset(due[i] + start, 0, stop - start);
	epoch->settled = 1;
	dt_epoch_release(epoch);
}

static void look_at_all(void)
{
	for (int i = 0; i < CURSORS; i++)
		look(i, DT_COLLECT, 0, CHUNKS * CHUNK);
}

// The steps, as the thread takes them

static void start_copying(void)
{
	struct dt_span span = {(uintptr_t)chunk, (uintptr_t)chunk + CHUNK * page_size, (uint32_t)page_shift, false};
	check(dt_enter(&session->lock) == 0);
	dt_collapse_begin(&huge->collapse, &span);
	dt_leave(&session->lock, 0);
	check(dt_collapse_copy(&huge->collapse) == 0);
}

static bool open_it(void)
{
	check(dt_enter(&session->lock) == 0);
	bool opened = dt_collapse_open(&huge->collapse, &huge->plain);
	if (!opened)
		huge->collapse.stage = DT_GROUNDED;
	dt_leave(&session->lock, 0);
	return opened;
}

static bool arm(void)
{
	check(dt_enter(&session->lock) == 0);
	bool armed = dt_collapse_arm(&huge->collapse, &huge->plain);
	dt_leave(&session->lock, 0);
	return armed;
}

static void owe(const struct dt_chunk_pages *written)
{
	check(dt_enter(&session->lock) == 0);
	if (huge->collapse.stage == DT_ARMED) {
		dt_huge_owe(huge, written);
		huge->collapse.stage = DT_GROUNDED;
	}
	dt_leave(&session->lock, 0);
}

static void finish(void)
{
	if (!arm())
		return;
	const struct dt_chunk_pages written = dt_collapse_compare(&huge->collapse);
	owe(&written);
}

static void fly(void)
{
	start_copying();
	check(open_it());
}

// One after another

static void try_each_instant(void)
{
	start_copying();
	store(3);
	check(!open_it()); // it is written
	look_at_all();

	store(4);
	start_copying(); // with what was stored, whose mark opening would erase
	check(!open_it());
	look_at_all();

	fly();
	store(5);
	look(0, DT_PEEK, 0, CHUNKS * CHUNK); // which lands it
	store(6);
	look_at_all();
	check(!arm());

	fly();
	dt_collapse_run(&huge->collapse);
	store(7);
	check(arm());
	store(8);
	struct dt_chunk_pages written = dt_collapse_compare(&huge->collapse);
	store(9);
	look(0, DT_COLLECT, 0, CHUNKS * CHUNK); // which compares, too
	owe(&written);                          // too late
	look_at_all();

	fly();
	store(10);
	store(CHUNK - 1);
	look(0, DT_COLLECT, 11, 20); // of the rest it learns later
	look(1, DT_COLLECT, CHUNK - 2, CHUNK + 1);
	look(0, DT_COLLECT, 0, CHUNK - 1);
	look_at_all();

	fly();
	store(11);
	dt_begin_reading(session);
	check(huge->collapse.stage == DT_GROUNDED);
	chunk[11 * page_size + 11]--; // undone, but there was a moment to read it in
	dt_end_reading(session);
	look_at_all();

	fly();
	store(12);
	check(dt_session_disarm(session, (uintptr_t)chunk, (uintptr_t)chunk + page_size) == 0);
	due[0][0] = due[1][0] = true; // open counts as written
	look_at_all();

	fly();
	store(13);
	finish();
	uint64_t another;
	check(dt_cursor_open(session, &another) == 0); // what is owed is not its own
	struct dt_slice slice = {tracked, 0, CHUNK};
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch && dt_collect(session, another, DT_COLLECT, &slice, 1, epoch) == 0 && epoch->pages == 0);
	dt_epoch_release(epoch);
	check(dt_cursor_close(session, another) == 0);
	look_at_all();
}

// A store that is undone while its chunk is open is in no epoch, unless somebody has read it.
static void try_copies(void)
{
	uint64_t bytes = CHUNK * page_size, cursor = cursors[0];
	struct dt_extent extent = {tracked, (uintptr_t)chunk, bytes, 0, page_size, 0};
	struct dt_slice slice = {tracked, 0, CHUNK};
	struct dt_failure failure;
	uint8_t *copy = dt_alloc(bytes);
	check(copy);
	const struct dt_copies snapshot = {&slice, &extent, &copy, 1, .maps = -1};
	for (int copier = 0; copier < 2; copier++) {
		fly();
		store(14);
		check((copier ? dt_copies_fill(session, cursor, &snapshot, &failure)
			      : dt_mirror_fill(session, &extent, 0, bytes, copy, &failure)) == 0);
		chunk[14 * page_size + 14]--;
		look_at_all();
	}
	dt_free(copy, bytes);
}

static void try_untracking(void)
{
	struct dt_failure failure;
	for (int landed = 0; landed < 2; landed++) {
		fly();
		store(13);
		if (landed)
			finish();
		check(dt_session_remove(session, tracked) == 0);
		check(!huge->owing && (landed || !arm()));
		memset(due, 0, sizeof due);
		check(dt_session_add(session, (uintptr_t)chunk, (uintptr_t)chunk + CHUNKS * CHUNK * page_size,
				     (uint32_t)page_shift, 0, &tracked, &failure) == 0);
		look_at_all();
	}
}

// The next step of the chunk. What was stored since the copy, and collected, keeps the thread from opening it.
static void take_step(bool *stored, struct dt_chunk_pages *written)
{
	switch (huge->collapse.stage) {
	case DT_GROUNDED:
		start_copying();
		*stored = false;
		break;
	case DT_COPIED:
		if (*stored)
			huge->collapse.stage = DT_GROUNDED;
		else if (!open_it())
			look_at_all(); // so that the next one can be opened
		break;
	case DT_OPENED:
		dt_collapse_run(&huge->collapse);
		check(arm());
		*written = dt_collapse_compare(&huge->collapse);
		break;
	case DT_ARMED:
		owe(written);
		break;
	}
}

// Any steps, stores and looks, in any order that one thread and others can make.
static void try_random_steps(uint64_t *random)
{
	struct dt_chunk_pages written = {0};
	bool stored = false;
	for (int step = 0; step < STEPS; step++) {
		uint64_t what = draw(random, 10), start = draw(random, CHUNK), stop = start + 1 + draw(random, CHUNK);
		int cursor = (int)draw(random, CURSORS);
		if (what < 3) {
			store(draw(random, CHUNK + 8));
			stored = true;
		} else if (what == 3) {
			look(cursor, DT_PEEK, start, stop);
		} else if (what == 4) {
			look(cursor, DT_COLLECT, start, stop);
		} else if (what == 5) {
			look_at_all();
		} else {
			take_step(&stored, &written);
		}
	}
	finish();
	look_at_all();
}

// The thread itself, beside two that write and one that looks

static bool writer_stops;

// The library reads what it writes, as intended: the thread sanitizer is not to see it.
__attribute__((no_sanitize("thread"))) static void *write_now_and_then(void *argument)
{
	uint64_t random = (uintptr_t)argument;
	while (!__atomic_load_n(&writer_stops, __ATOMIC_RELAXED)) {
		uint64_t first = draw(&random, CHUNKS * CHUNK - 8);
		for (int i = 0; i < 8; i++)
			++*(volatile uint64_t *)(chunk + (first + draw(&random, 8)) * page_size +
						 (uintptr_t)argument * 8);
		usleep((useconds_t)draw(&random, 1000));
	}
	return NULL;
}

static void copy_reported(char *copy)
{
	struct dt_slice slice = {tracked, 0, CHUNKS * CHUNK};
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	uint64_t refused;
	check(epoch && dt_collect(session, cursors[0], DT_COLLECT, &slice, 1, epoch) == 0);
	dt_begin_reading(session);
	for (uint64_t i = 0; i < epoch->run_count; i++) {
		struct dt_run run = epoch->buffers.runs[i];
		check(dt_session_contents(session, (uintptr_t)chunk + run.start * page_size,
					  (run.stop - run.start) * page_size, copy + run.start * page_size,
					  &refused) == 0);
	}
	dt_end_reading(session);
	epoch->settled = 1;
	dt_epoch_release(epoch);
}

static void try_the_thread(bool adaptive)
{
	pthread_t writers[2];
	begin(DT_HOLES_REPORTED, 1, adaptive);
	uint64_t bytes = CHUNKS * CHUNK * page_size;
	char *copy = malloc(bytes);
	check(copy);
	memcpy(copy, chunk, bytes);
	writer_stops = false;
	for (uintptr_t i = 0; i < 2; i++)
		check(pthread_create(&writers[i], NULL, write_now_and_then, (void *)(i + 5)) == 0);
	for (int round = 0; round < 100; round++) {
		copy_reported(copy);
		usleep(500);
	}
	__atomic_store_n(&writer_stops, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(writers[i], NULL);
	copy_reported(copy);
	check(memcmp(copy, chunk, bytes) == 0);
	free(copy);
	dt_session_release(session);
}

// Twice as long each time, but for one that was quiet for long.
static void try_policy(void)
{
	const struct dt_waits waits = {8, 32};
	const uint32_t expected[] = {8, 16, 32, 32};
	struct dt_split split = {.kinds = 1, .mapped = DT_ON_HUGE_PAGE};
	for (size_t i = 0; i < 4; i++) {
		dt_split_written(&split, waits, false);
		for (uint32_t scan = 1; scan <= expected[i]; scan++) {
			check(!dt_split_is_cold(&split));
			check(dt_split_quiet(&split) == (scan == expected[i]));
		}
		check(dt_split_is_cold(&split));
		split.mapped = DT_ON_HUGE_PAGE; // it was put back
		if (i < 3)
			split.quiet = 9;
	}
	dt_split_written(&split, waits, false);
	check(split.wait == 8);
	dt_split_refused(&split, waits);
	check(split.wait == 16 && split.quiet == 0);
	dt_split_written(&split, waits, true); // all of a new one
	check(split.mapped == DT_ON_HUGE_PAGE && split.wait == 16);
}

void try_huge(uint64_t *random)
{
	static const enum dt_hole_reporting kernels[] = {DT_HOLES_REPORTED, DT_HOLES_UNREPORTED_FOR_TESTS};
	try_policy();
	map_chunks();
	for (int i = 0; i < 2; i++) {
		begin(kernels[i], NEVER, false);
		try_each_instant();
		try_copies();
		try_untracking();
		try_random_steps(random);
		dt_session_release(session);
	}
	try_the_thread(false);
	try_the_thread(true);
	unmap_chunks();
}
