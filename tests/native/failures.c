// Every allocation and every system call of the core fails in turn, once or from then on. Whoever is told of an error
// tries again when all works; then nothing may be lost that was written, and in the end nothing may be left.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "backends/huge.h"
#include "backends/keep_huge.h"
#include "barrier/writewatch.h"
#include "driver.h"
#include "failing.h"

enum { SPAN = 24 }; // pages

static enum failing how;
static long tries, losses;

// Calls again what failed.
#define surely(call)                        \
	do {                                \
		if ((call) < 0) {           \
			succeed();          \
			check((call) >= 0); \
		}                           \
	} while (0)

static void write_page(uint64_t page, bool *due)
{
	memory[page * page_size]++;
	due[page] = true;
}

static int open_session(enum dt_hole_reporting holes)
{
	uint64_t features = DT_UFFD_FEATURE_WP_ASYNC, cursor;
	int userfaultfd = dt_uffd_syscall(O_CLOEXEC | O_NONBLOCK | DT_UFFD_USER_MODE_ONLY);
	if (userfaultfd < 0)
		return userfaultfd;
	int pagemap = dt_uffd_api(userfaultfd, &features) < 0 ? -1 : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0) {
		dt_close(userfaultfd);
		return -errno;
	}
	return dt_session_open_wp_async(userfaultfd, pagemap, holes, &session, &cursor);
}

static int track(uint64_t start, uint64_t stop, uint64_t *region)
{
	struct dt_failure failure;
	uint64_t base = (uintptr_t)memory;
	return dt_session_add(session, base + start * page_size, base + stop * page_size, (uint32_t)page_shift, 0,
			      region, &failure);
}

// Whether no userfaultfd has the pages [start, stop): a new one can have them.
static bool are_free(uint64_t start, uint64_t stop)
{
	uint64_t features = DT_UFFD_FEATURE_WP_ASYNC, ioctls;
	int fresh = dt_uffd_syscall(O_CLOEXEC | O_NONBLOCK | DT_UFFD_USER_MODE_ONLY);
	check(fresh >= 0 && dt_uffd_api(fresh, &features) == 0);
	int error = dt_uffd_register(fresh, (uintptr_t)memory + start * page_size, (stop - start) * page_size,
				     DT_REGISTER_WP, &ioctls);
	dt_close(fresh);
	return error != -EBUSY;
}

// What could not be tracked is not registered, unless the kernel refuses that, too. [start, free) another region has.
static void surely_track(uint64_t start, uint64_t free, uint64_t stop, uint64_t *region)
{
	if (track(start, stop, region) == 0)
		return;
	succeed();
	check(how == ALWAYS || are_free(free, stop));
	check(track(start, stop, region) == 0);
}

// A region that has been lost is given up, and what was due there with it: its user was told.
static bool is_lost(int error)
{
	losses += error == -DT_ELOST;
	return error == -DT_ELOST;
}

static bool collect(uint64_t cursor, const struct dt_slice *slice, int verb, bool *due)
{
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	if (!epoch) {
		succeed();
		epoch = dt_epoch_new(sizeof *epoch);
	}
	int error = dt_collect(session, cursor, verb, slice, 1, epoch);
	if (error && !is_lost(error)) {
		succeed();
		error = dt_collect(session, cursor, verb, slice, 1, epoch);
	}
	bool lost = error && (error == -DT_ELOST || is_lost(error));
	check(!error || lost);
	bool found[SPAN] = {0};
	for (uint64_t i = 0; i < epoch->run_count; i++)
		for (uint64_t page = epoch->buffers.runs[i].start; page < epoch->buffers.runs[i].stop; page++)
			found[page] = true;
	for (uint64_t page = slice->start; page < slice->stop && !lost; page++) {
		check(found[page] || !due[page]);
		due[page] = due[page] && verb == DT_PEEK;
	}
	epoch->settled = 1;
	dt_epoch_release(epoch);
	return !lost;
}

// Two regions that share pages, and two cursors; what each has pending is known.
static void use_session(void)
{
	uint64_t region, neighbour, one, two;
	bool due[2][SPAN] = {0};
	surely(open_session(DT_HOLES_UNREPORTED_FOR_TESTS));
	surely(dt_cursor_open(session, &one));
	surely_track(0, 0, SPAN, &region);
	write_page(1, due[0]);
	surely(dt_cursor_open(session, &two));
	for (uint64_t page = 2; page < 9; page += 3) {
		write_page(page, due[0]);
		due[1][page] = true;
	}
	surely_track(4, SPAN, SPAN + 8, &neighbour);
	struct dt_slice whole = {region, 0, SPAN}, half = {region, 0, SPAN / 2};
	bool held = collect(one, &half, DT_COLLECT, due[0]) && collect(two, &whole, DT_PEEK, due[1]);
	if (held) {
		write_page(20, due[0]);
		due[1][20] = true;
		surely(dt_session_mark(session, region, 22, 23));
		due[0][22] = due[1][22] = true;
		held = collect(one, &whole, DT_COLLECT, due[0]) && collect(two, &whole, DT_COLLECT, due[1]);
	}
	surely(dt_cursor_close(session, two));
	if (dt_session_remove(session, neighbour) == 1) { // the kernel would not let go
		succeed();
		uint64_t start = (uintptr_t)memory;
		check(dt_session_release_range(session, start + SPAN * page_size, start + (SPAN + 8) * page_size) == 0);
	}
	if (held) {
		write_page(7, due[0]);
		collect(one, &whole, DT_COLLECT, due[0]);
	}
	dt_session_release(session);
}

// What is told of as failed has all cards set, so that a collector can go on.
static void use_tracker(void)
{
	struct dt_tracker *tracker;
	bool due[SPAN] = {0};
	surely(dt_tracker_open(page_size, DT_BYTES, &tracker));
	surely(dt_tracker_add(tracker, memory, 8 * page_size, DT_DENSE, NULL));
	surely(dt_tracker_add(tracker, memory + 8 * page_size, (SPAN - 8) * page_size, DT_SPARSE, NULL));
	for (uint64_t round = 0; round < 3; round++) {
		uint8_t map[SPAN];
		write_page(round, due);
		write_page(SPAN - 1 - round, due);
		surely(dt_tracker_mark(tracker, memory + (5 + round) * page_size, 1));
		due[5 + round] = true;
		int error = dt_tracker_peek(tracker, map, SPAN, NULL);
		check(error == 0 || has_failed());
		error = dt_tracker_take(tracker, map, SPAN, NULL);
		check(error == 0 || has_failed());
		for (int card = 0; card < SPAN; card++)
			check(map[card] || (!error && !due[card]));
		memset(due, 0, sizeof due);
	}
	surely(dt_tracker_remove(tracker, memory, SPAN * page_size));
	dt_tracker_close(tracker);
}

// All but the cards that a part which was removed had.
static void take_due(struct dt_tracker *tracker, bool *due, int gone_from, int gone_to)
{
	uint8_t map[SPAN];
	int error = dt_tracker_take(tracker, map, SPAN, NULL);
	check(error == 0 || has_failed());
	for (int card = 0; card < SPAN; card++) {
		check(map[card] || (!error && !due[card]) || (gone_from <= card && card < gone_to));
		due[card] = false;
	}
}

// A part that could not be removed, or replaced, can be the next time, and lists lose nothing.
static void use_parts(void)
{
	struct dt_tracker *tracker;
	struct dt_range runs[SPAN];
	bool due[SPAN] = {0};
	surely(dt_tracker_open(page_size, DT_BYTES, &tracker));
	surely(dt_tracker_add(tracker, memory, SPAN * page_size, DT_DENSE, NULL));
	surely(dt_tracker_prepare(tracker));
	write_page(2, due);
	write_page(20, due);
	surely(dt_tracker_remove(tracker, memory + 8 * page_size, 4 * page_size));
	take_due(tracker, due, 8, 12);
	write_page(3, due);
	write_page(21, due);
	long n = dt_tracker_runs(tracker, DT_LIST_TAKE, NULL, SIZE_MAX, runs, SPAN);
	check(n >= 0 || has_failed());
	for (long i = 0; i < n; i++)
		for (uint64_t card = 0; card < runs[i].cards; card++)
			due[runs[i].first_card + card] = false;
	check(n < 0 || (!due[3] && !due[21]));
	if (dt_tracker_replace(tracker, memory + 4 * page_size, 2 * page_size)) {
		succeed();
		check(dt_tracker_replace(tracker, memory + 4 * page_size, 2 * page_size) == 0);
	}
	due[4] = due[5] = true;
	surely(dt_tracker_add(tracker, memory + 8 * page_size, 4 * page_size, DT_DENSE, NULL));
	take_due(tracker, due, 0, 0);
	dt_tracker_close(tracker);
}

// What could not be put back is put back the next time, unless the failed call has said that the memory is another.
static void use_reset(void)
{
	struct dt_snapshot *snapshot;
	static char before[SPAN << 16];
	size_t bytes = SPAN * page_size, pages;
	int error = 0;
	surely(dt_snapshot_open(&snapshot));
	surely(dt_snapshot_add(snapshot, memory, bytes, DT_DENSE));
	memcpy(before, memory, bytes);
	for (uint64_t round = 1; round < 3 && !error; round++) {
		memory[round * page_size]++;
		memory[5 * round * page_size + 7]++;
		error = dt_snapshot_rollback(snapshot, &pages);
		if (error) {
			succeed();
			error = dt_snapshot_rollback(snapshot, &pages);
		}
		check(error == -DT_ELOST || (!error && memcmp(before, memory, bytes) == 0));
	}
	losses += error != 0;
	memory[0]++;
	if (!error && dt_snapshot_advance(snapshot, &pages)) {
		succeed();
		error = dt_snapshot_advance(snapshot, &pages);
	}
	memory[0]--;
	if (!error && dt_snapshot_rollback(snapshot, &pages)) {
		succeed();
		error = dt_snapshot_rollback(snapshot, &pages);
	}
	check(error == -DT_ELOST || (!error && memory[0] == (char)(before[0] + 1)));
	dt_snapshot_close(snapshot);
}

static int watch(uint64_t cursor, uint64_t *addresses, uint64_t *found)
{
	uint64_t granularity, start = (uintptr_t)memory;
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	*found = SPAN;
	if (!epoch)
		return -ENOMEM;
	int error = dt_session_write_watch(session, cursor, start, start + SPAN * page_size, 1, addresses, found,
					   &granularity, epoch);
	epoch->settled |= !error;
	dt_epoch_release(epoch);
	return error;
}

static void use_write_watch(void)
{
	uint64_t region, cursor, addresses[SPAN], found;
	bool due[SPAN] = {0};
	surely(open_session(DT_HOLES_REPORTED));
	surely_track(0, 0, SPAN, &region);
	surely(dt_cursor_open(session, &cursor));
	write_page(3, due);
	write_page(17, due);
	int error = watch(cursor, addresses, &found);
	if (error && error != -DT_EUNTRACKED) { // which says that the region is lost
		succeed();
		error = watch(cursor, addresses, &found);
	}
	check(!error || error == -DT_EUNTRACKED);
	losses += error == -DT_EUNTRACKED;
	for (uint64_t i = 0; !error && i < found; i++)
		due[(addresses[i] - (uintptr_t)memory) / page_size] = false;
	check(error || (!due[3] && !due[17]));
	dt_session_release(session);
}

static int capture(uint64_t cursor, const struct dt_extent *extent, const struct dt_slice *slice, uint8_t *copy)
{
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	struct dt_capture *capture = dt_capture_new(sizeof *capture);
	uint8_t block[DT_BLOCK];
	int error = epoch && capture ? 0 : -ENOMEM;
	if (!error) {
		capture->extents = extent;
		capture->extent_count = 1;
		struct dt_piece piece = {block, 1, 0, 0};
		error = dt_capture(session, cursor, slice, 1, epoch, capture, NULL, &piece, 1);
		while (!error && piece.blocks) {
			memcpy(copy + (capture->runs[piece.run].first + piece.block) * DT_BLOCK, block, DT_BLOCK);
			piece.blocks = 1;
			error = dt_capture_copy(capture, &piece, 1, &epoch->failure);
		}
		epoch->settled = !error;
	}
	if (epoch)
		dt_epoch_release(epoch);
	if (capture)
		dt_capture_free(capture);
	return error;
}

static void use_capture(void)
{
	static uint8_t copy[SPAN << 16];
	uint64_t region, cursor, bytes = SPAN * page_size;
	bool due[SPAN];
	check(bytes <= sizeof copy);
	surely(open_session(DT_HOLES_REPORTED));
	surely_track(0, 0, SPAN, &region);
	surely(dt_cursor_open(session, &cursor));
	memcpy(copy, memory, bytes);
	struct dt_extent extent = {region, (uintptr_t)memory, bytes, 0, page_size, 0};
	struct dt_slice slice = {region, 0, SPAN};
	for (uint64_t round = 1; round < 3; round++) {
		write_page(round, due);
		write_page(9 * round, due);
		int error = capture(cursor, &extent, &slice, copy);
		if (error && !is_lost(error)) {
			succeed();
			error = capture(cursor, &extent, &slice, copy);
		}
		check(error == -DT_ELOST || (!error && memcmp(copy, memory, bytes) == 0));
	}
	dt_session_release(session);
}

#ifndef __SANITIZE_THREAD__
static void keep_huge_pages(void)
{
	surely(open_session(DT_HOLES_UNREPORTED_FOR_TESTS));
	if (dt_session_keep_huge_pages(session, 1U << 30, 1U << 30) == 0) // its thread sleeps
		return;
	succeed();
	dt_session_release(session); // as Python does
	check(open_session(DT_HOLES_UNREPORTED_FOR_TESTS) == 0);
	check(dt_session_keep_huge_pages(session, 1U << 30, 1U << 30) == 0);
}

// Takes a chunk through its stages, with a store in each. Whatever fails, the stores are reported.
static void collapse(uint64_t start, bool lands, char *chunk, bool *due)
{
	struct dt_huge *huge = session->worker.context;
	struct dt_span span = {start, start + DT_CHUNK_PAGES * page_size, (uint32_t)page_shift, false};
	dt_collapse_begin(&huge->collapse, &span);
	if (dt_collapse_copy(&huge->collapse) || !dt_collapse_open(&huge->collapse, &huge->plain)) {
		huge->collapse.stage = DT_GROUNDED;
		return;
	}
	chunk[3 * page_size]++;
	due[3] = true;
	dt_collapse_run(&huge->collapse);
	if (lands)
		return;
	dt_collapse_arm(&huge->collapse, &huge->plain);
	chunk[5 * page_size]++;
	due[5] = true;
	const struct dt_chunk_pages written = dt_collapse_compare(&huge->collapse);
	dt_huge_owe(huge, &written);
	huge->collapse.stage = DT_GROUNDED;
}

static void use_huge_pages(void)
{
	static char *mapped;
	uint64_t bytes = DT_CHUNK_PAGES * page_size, region, cursor;
	struct dt_failure failure;
	bool due[SPAN] = {0}, held = true;
	if (!mapped)
		mapped = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
			      0);
	char *chunk = mapped + (-(uintptr_t)mapped & (bytes - 1));
	uint64_t start = (uintptr_t)chunk;
	keep_huge_pages();
	surely(dt_session_add(session, start, start + bytes, (uint32_t)page_shift, 0, &region, &failure));
	surely(dt_cursor_open(session, &cursor));
	struct dt_slice slice = {region, 0, SPAN};
	for (int round = 0; round < 2 && held; round++) {
		collapse(start, round, chunk, due);
		chunk[7 * page_size]++;
		due[7] = true;
		held = collect(cursor, &slice, DT_COLLECT, due);
	}
	dt_session_release(session);
}
#endif

static int open_descriptors(void)
{
	int n = 0;
	DIR *folder = opendir("/proc/self/fd");
	check(folder);
	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

static void nothing_is_left(int descriptors, long mappings, long blocks)
{
	check(open_descriptors() == descriptors);
	check(held_mappings() == mappings);
	check(held_blocks() == blocks);
	check(are_free(0, PAGES));
}

static void try_scenario(void (*run)(void))
{
	static const int errors[] = {ENOMEM, EFAULT};
	run(); // what is kept for good is there from now on
	int descriptors = open_descriptors();
	long mappings = held_mappings(), blocks = held_blocks();
	for (int way = 0; way < 4; way++) {
		long call = 0;
		how = way / 2 ? ALWAYS : ONCE;
		do {
			fail_call(++call, how, errors[way % 2]);
			run();
			succeed();
			nothing_is_left(descriptors, mappings, blocks);
			tries++;
		} while (has_failed());
		check(call > 10);
	}
}

void try_failures(void)
{
	try_scenario(use_session);
	try_scenario(use_tracker);
	try_scenario(use_parts);
	try_scenario(use_reset);
	try_scenario(use_write_watch);
	try_scenario(use_capture);
#ifndef __SANITIZE_THREAD__ // which takes minutes for it, and has nothing to say of one thread
	try_scenario(use_huge_pages);
#endif
	check(losses && losses < tries / 4);
}
