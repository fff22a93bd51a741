// Exercises the C core under the sanitizers: run lists and bitmaps against plain arrays, then many threads on one
// session, each of which knows exactly what it must be told of the memory that only it writes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint.h"
#include "history.h"
#include "internal.h"

#define check(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "driver.c:%d: not so: %s\n", __LINE__, #condition);                            \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

#ifdef __SANITIZE_ADDRESS__
// Each block on the heap by itself, where the sanitizer sees its bounds and its end; memory.c's own allocator is
// left to the other build. The size given back has to be the size asked for.
static long allocations_left = -1; // after which none succeeds; negative: all do

void *dt_alloc(size_t bytes)
{
	if (allocations_left == 0)
		return NULL;
	allocations_left -= allocations_left > 0;
	size_t *block = calloc(1, sizeof(size_t) * 2 + bytes);
	if (!block)
		return NULL;
	*block = bytes;
	return block + 2;
}

void dt_free(void *pointer, size_t bytes)
{
	if (!pointer)
		return;
	size_t *block = (size_t *)pointer - 2;
	check(*block == bytes);
	free(block);
}
#endif

// Makes all allocations after so many fail, where the driver has the allocator; returns whether it has.
static bool limit_allocations(long most)
{
#ifdef __SANITIZE_ADDRESS__
	allocations_left = most;
	return true;
#else
	(void)most;
	return false;
#endif
}

static uint64_t draw(uint64_t *state, uint64_t below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state % below;
}

// Run lists and bitmaps

enum { UNIVERSE = 200 };

static size_t runs_of(const bool *set, struct dt_run *out)
{
	size_t n = 0;
	for (uint64_t page = 0; page < UNIVERSE; page++) {
		if (!set[page])
			continue;
		if (n && out[n - 1].stop == page)
			out[n - 1].stop++;
		else
			out[n++] = (struct dt_run){page, page + 1};
	}
	return n;
}

static bool same(const struct dt_run *a, size_t na, const struct dt_run *b, size_t nb)
{
	return na == nb && (na == 0 || memcmp(a, b, na * sizeof *a) == 0);
}

static void try_run_lists(uint64_t *random)
{
	static const int operations[] = {DT_AND, DT_SUB, DT_XOR, DT_OR};
	bool a[UNIVERSE], b[UNIVERSE], wanted[UNIVERSE];
	uint64_t density_a = 1 + draw(random, 16), density_b = 1 + draw(random, 16);
	for (int page = 0; page < UNIVERSE; page++) {
		a[page] = draw(random, 16) < density_a;
		b[page] = draw(random, 16) < density_b;
	}
	struct dt_run left[UNIVERSE], right[UNIVERSE], expected[UNIVERSE];
	size_t na = runs_of(a, left), nb = runs_of(b, right);
	for (int i = 0; i < 4; i++) {
		uint64_t count = 0;
		for (int page = 0; page < UNIVERSE; page++)
			count += wanted[page] = operations[i] >> (2 * a[page] + b[page]) & 1;
		size_t n = runs_of(wanted, expected);
		struct dt_run *out = dt_alloc((na + nb + 1) * sizeof *out); // on the heap: no run beyond the promised room
		check(out);
		check(same(out, dt_runs_combine(operations[i], left, na, right, nb, out), expected, n));
		check(dt_runs_count(out, n) == count);
		uint8_t mask[UNIVERSE];
		dt_runs_mask(out, n, UNIVERSE, mask);
		for (int page = 0; page < UNIVERSE; page++) {
			check(mask[page] == wanted[page]);
			check(!!dt_runs_contain(out, n, (uint64_t)page) == wanted[page]);
		}
		dt_free(out, (na + nb + 1) * sizeof *out);
	}
}

static void try_bitmap(uint64_t *random)
{
	bool model[UNIVERSE] = {0};
	struct dt_bits bits = {.words = dt_alloc(dt_bits_bytes(UNIVERSE))};
	check(bits.words);
	for (int step = 0; step < 20; step++) {
		uint64_t start = draw(random, UNIVERSE), stop = start + draw(random, UNIVERSE + 1 - start);
		bool set = draw(random, 2);
		(set ? dt_bits_set : dt_bits_clear)(&bits, start, stop);
		for (uint64_t page = start; page < stop; page++)
			model[page] = set;
		uint64_t first = draw(random, UNIVERSE), last = first + draw(random, UNIVERSE + 1 - first);
		bool part[UNIVERSE] = {0};
		memcpy(part + first, model + first, last - first);
		struct dt_run expected[UNIVERSE];
		size_t n = runs_of(part, expected), room = (last - first + 1) / 2;
		struct dt_run *out = dt_alloc(room * sizeof *out + 1);
		check(out);
		check(same(out, dt_bits_runs(&bits, first, last, out), expected, n));
		dt_free(out, room * sizeof *out + 1);
	}
	dt_free(bits.words, dt_bits_bytes(UNIVERSE));
}

// A session and its memory

enum { THREADS = 4, PIECE = 96, PAGES = THREADS * PIECE };

static struct dt_session *session;
static uint64_t page_size, page_shift;
static char *memory;
static bool stop_visitors;

static struct dt_session *open_tracker(int blind_to_holes)
{
	uint64_t features = DT_UFFD_FEATURE_WP_ASYNC, cursor;
	int userfaultfd = dt_uffd_syscall(O_CLOEXEC | O_NONBLOCK | DT_UFFD_USER_MODE_ONLY);
	check(userfaultfd >= 0);
	check(dt_uffd_api(userfaultfd, &features) == 0);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	check(pagemap >= 0);
	struct dt_session *opened;
	check(dt_session_open(userfaultfd, pagemap, blind_to_holes, &opened, &cursor) == 0);
	return opened;
}

static uint64_t add(uint64_t first, uint64_t last)
{
	struct dt_failure failure;
	uint64_t region, start = (uintptr_t)memory;
	check(dt_session_add(session, start + first * page_size, start + last * page_size, (uint32_t)page_shift, 0, &region,
			     &failure) == 0);
	return region;
}

// A thread that owns a piece of the memory, a region of it and a cursor: nobody else writes there.
struct owner {
	pthread_t thread;
	uint64_t random, region, cursor;
	uint64_t first; // page of the memory
	bool due[PIECE];
};

static void dirty(struct owner *self)
{
	for (uint64_t i = draw(&self->random, 12); i; i--) {
		uint64_t page = draw(&self->random, PIECE), what = draw(&self->random, 8);
		char *address = memory + (self->first + page) * page_size;
		if (what == 0)
			check(madvise(address, page_size, MADV_DONTNEED) == 0);
		else if (what == 1)
			check(dt_session_mark(session, self->region, page, page + 1) == 0);
		else
			address[draw(&self->random, page_size)]++;
		self->due[page] = true;
	}
}

// One verb on a slice of the region, which must give exactly the pages that are due there.
static void look(struct owner *self)
{
	uint64_t first = draw(&self->random, 2) ? 0 : draw(&self->random, PIECE);
	uint64_t last = first ? first + 1 + draw(&self->random, PIECE - first) : PIECE;
	int verb = draw(&self->random, 4) ? DT_COLLECT : (int)draw(&self->random, 3);
	struct dt_slice slice = {self->region, first, last};
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch);
	check(dt_collect(session, self->cursor, verb, &slice, 1, epoch) == 0);
	check(epoch->entry_count == (verb != DT_RESET));

	bool found[PIECE] = {0};
	for (uint64_t i = 0; i < epoch->run_count; i++)
		for (uint64_t page = epoch->buffers.runs[i].start; page < epoch->buffers.runs[i].stop; page++)
			found[page] = true;
	for (uint64_t page = first; page < last && verb != DT_RESET; page++)
		check(found[page] == self->due[page]);

	uint64_t fate = draw(&self->random, 4); // kept, aborted, or released with nobody having read it
	if (fate == 0)
		check(dt_epoch_abort(epoch) == 0);
	else if (fate != 1)
		epoch->settled = 1;
	if (verb == DT_RESET || (verb == DT_COLLECT && fate > 1))
		memset(self->due + first, 0, last - first);
	dt_epoch_release(epoch);
}

static void *own(void *argument)
{
	struct owner *self = argument;
	for (int round = 0; round < 300; round++) {
		dirty(self);
		look(self);
	}
	return NULL;
}

// Threads that come and go: overlapping regions, cursors of their own, and everybody's pages collected.
static void *visit(void *argument)
{
	uint64_t random = (uintptr_t)argument, cursor;
	while (!__atomic_load_n(&stop_visitors, __ATOMIC_RELAXED)) {
		uint64_t first = draw(&random, PAGES), region = add(first, first + 1 + draw(&random, PAGES - first));
		check(dt_cursor_open(session, &cursor) == 0);
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		check(epoch);
		int error = dt_collect_all(session, cursor, DT_COLLECT, dt_session_generation(session), epoch);
		check(error == 0 || error == -DT_ESTALE);
		check(dt_cursor_close(session, cursor) == 0);
		check(dt_session_is_lost(session, region) == 0);
		check(dt_session_remove(session, region) == 0);
		dt_epoch_release(epoch); // it has nobody to go back to
	}
	return NULL;
}

static void try_threads(int blind_to_holes, uint64_t *random)
{
	struct owner owners[THREADS] = {0};
	pthread_t visitors[2];
	session = open_tracker(blind_to_holes);
	__atomic_store_n(&stop_visitors, false, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++) {
		owners[i].first = (uint64_t)i * PIECE;
		owners[i].random = draw(random, 1 << 30) + 1;
		owners[i].region = add(owners[i].first, owners[i].first + PIECE);
		check(dt_cursor_open(session, &owners[i].cursor) == 0);
	}
	for (int i = 0; i < THREADS; i++)
		check(pthread_create(&owners[i].thread, NULL, own, &owners[i]) == 0);
	for (uintptr_t i = 0; i < 2; i++)
		check(pthread_create(&visitors[i], NULL, visit, (void *)(i + 7)) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(owners[i].thread, NULL);
	__atomic_store_n(&stop_visitors, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(visitors[i], NULL);
	dt_session_release(session);
}

// Closing while others use the session, and one epoch in the hands of two threads

static void *use_until_closed(void *argument)
{
	struct dt_epoch *shared = argument;
	uint64_t cursor;
	int error;
	while ((error = dt_cursor_open(session, &cursor)) == 0 && (error = dt_cursor_close(session, cursor)) == 0)
		dt_epoch_abort(shared);
	check(error == -DT_ECLOSED);
	check(dt_session_usable(session) == -DT_ECLOSED);
	return NULL;
}

static void try_closing(void)
{
	pthread_t users[2];
	session = open_tracker(0);
	struct dt_slice slice = {add(0, PAGES), 0, PAGES};
	uint64_t cursor;
	check(dt_cursor_open(session, &cursor) == 0);
	memory[0]++;
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch);
	check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, epoch) == 0);
	check(epoch->pages == 1);
	for (int i = 0; i < 2; i++)
		check(pthread_create(&users[i], NULL, use_until_closed, epoch) == 0);
	usleep(2000); // let them be in the middle of it
	dt_session_close(session);
	for (int i = 0; i < 2; i++)
		pthread_join(users[i], NULL);
	dt_epoch_release(epoch);
	dt_session_release(session);
}

static void try_fork(void)
{
	session = open_tracker(0);
	struct dt_slice slice = {add(0, PAGES), 0, PAGES};
	uint64_t cursor;
	check(dt_cursor_open(session, &cursor) == 0);
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch), *other = dt_epoch_new(sizeof *other);
	check(epoch && other);
	memory[page_size]++;
	check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, epoch) == 0);
	pid_t child = fork();
	if (child == 0) {
		check(dt_session_usable(session) == -DT_EFORKED);
		check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, other) == -DT_EFORKED);
		check(dt_epoch_abort(epoch) == -DT_EFORKED);
		dt_epoch_release(epoch);
		dt_epoch_release(other);
		dt_session_release(session);
		_exit(0);
	}
	int status;
	check(waitpid(child, &status, 0) == child);
	check(status == 0);
	dt_epoch_release(epoch); // gives its page back: the child's release has not
	check(dt_collect(session, cursor, DT_COLLECT, &slice, 1, other) == 0);
	check(other->pages == 1);
	dt_epoch_release(other);
	dt_session_release(session);
}

// Captures: two regions that begin in the middle of pages and share one, copied in pieces of any size. What arrives must
// be blocks of the regions as they are, and among them every byte that was changed.

enum { SOURCES = 2 };

static void make_sources(struct dt_source *sources, struct dt_slice *slices)
{
	const uint64_t begin[SOURCES] = {100, 5 * page_size + 300}, end[SOURCES] = {5 * page_size + 200, 23 * page_size + 7};
	for (int i = 0; i < SOURCES; i++) {
		uint64_t first = begin[i] / page_size, last = (end[i] + page_size - 1) / page_size, id = add(first, last);
		sources[i] = (struct dt_source){id, (uint64_t)(uintptr_t)memory + begin[i], end[i] - begin[i],
						begin[i] % page_size, page_size};
		slices[i] = (struct dt_slice){id, 0, last - first};
	}
}

// Puts what a piece holds into the copies.
static void receive(const struct dt_capture *capture, const struct dt_piece *piece, uint8_t **copies)
{
	size_t run = piece->run;
	uint64_t block = piece->block;
	for (uint64_t i = 0; i < piece->blocks; i++) {
		const struct dt_block_run *blocks = &capture->runs[run];
		uint64_t start = (blocks->first + block) * DT_BLOCK, left = capture->sources[blocks->source].nbytes - start;
		memcpy(copies[blocks->source] + start, piece->data + i * DT_BLOCK, left < DT_BLOCK ? left : DT_BLOCK);
		if (++block == blocks->count) {
			run++;
			block = 0;
		}
	}
}

static void try_capture(uint64_t *random)
{
	session = open_tracker(0);
	struct dt_source sources[SOURCES];
	struct dt_slice slices[SOURCES];
	uint8_t *copies[SOURCES], staging[7 * DT_BLOCK];
	uint64_t cursor;
	make_sources(sources, slices);
	check(dt_cursor_open(session, &cursor) == 0);
	for (int i = 0; i < SOURCES; i++) {
		copies[i] = malloc(sources[i].nbytes);
		check(copies[i]);
	}
	for (int round = 0; round < 60; round++) {
		uint64_t writes = round ? draw(random, 6) : 0;
		for (uint64_t i = 0; i < writes; i++)
			memory[draw(random, 24 * page_size)]++;
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		struct dt_capture *capture = dt_capture_new(sizeof *capture);
		check(epoch && capture);
		capture->sources = sources;
		capture->source_count = SOURCES;
		uint64_t room = draw(random, 7), copied = 0;
		struct dt_piece pieces[2] = {{staging, room, 0, 0}, {staging + room * DT_BLOCK, 7 - room, 0, 0}};
		check(dt_capture(session, cursor, slices, SOURCES, epoch, capture, round == 0, pieces, 2) == 0);
		for (;;) {
			for (int i = 0; i < 2; i++) {
				receive(capture, &pieces[i], copies);
				copied += pieces[i].blocks;
			}
			if (capture->run == capture->run_count)
				break;
			pieces[0] = (struct dt_piece){staging, 1 + draw(random, 7), 0, 0};
			pieces[1].blocks = 0;
			dt_capture_copy(capture, pieces, 1);
		}
		check(copied == capture->blocks && capture->rewritten == 0);
		check(round == 0 || capture->blocks <= 4 * writes * (page_size / DT_BLOCK)); // a page touches two in each region
		for (int i = 0; i < SOURCES; i++)
			check(memcmp(copies[i], (void *)(uintptr_t)sources[i].address, sources[i].nbytes) == 0);
		epoch->settled = 1;
		dt_epoch_release(epoch);
		dt_capture_free(capture);
	}
	for (int i = 0; i < SOURCES; i++)
		free(copies[i]);
	dt_session_release(session);

	uint8_t mask[3];
	memset(staging, 0, sizeof staging);
	staging[DT_BLOCK - 1] = 1;
	check(dt_zero_blocks(staging, 2 * DT_BLOCK + 1, mask) == 2);
	check(mask[0] == 0 && mask[1] == 1 && mask[2] == 1);
}

// What the sanitizers are there to find, to see them find it

static int unguarded;

static void *bump(void *argument)
{
	unguarded++;
	return argument;
}

static int fail_on_purpose(void)
{
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		check(pthread_create(&threads[i], NULL, bump, NULL) == 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	struct dt_run *runs = dt_alloc(sizeof *runs); // room for one run where there are two
	check(runs);
	struct dt_run a = {1, 2}, b = {4, 5};
	dt_runs_combine(DT_OR, &a, 1, &b, 1, runs);
	dt_free(runs, sizeof *runs);
	return 0;
}

// Snapshots and histories

enum { STATES = 6 };

static struct dt_twin twins[SOURCES];
static struct dt_slice twin_slices[SOURCES];
static uint64_t twin_cursor;

static void make_twins(void)
{
	struct dt_source sources[SOURCES];
	make_sources(sources, twin_slices);
	check(dt_cursor_open(session, &twin_cursor) == 0);
	for (int i = 0; i < SOURCES; i++) {
		uint8_t *copy = calloc(1, sources[i].nbytes);
		check(copy);
		twins[i] = (struct dt_twin){sources[i].region, sources[i].address, sources[i].nbytes, sources[i].offset,
					    sources[i].page_size, copy};
		dt_copy(&twins[i]);
	}
}

static void scribble(uint64_t *random)
{
	for (uint64_t n = draw(random, 6); n; n--)
		memset(memory + draw(random, 23 * page_size), (int)draw(random, 3), draw(random, page_size));
}

static struct dt_epoch *peek_twins(void)
{
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	check(epoch && dt_collect(session, twin_cursor, DT_PEEK, twin_slices, SOURCES, epoch) == 0);
	return epoch;
}

static bool equals(const struct dt_twin *twin, const uint8_t *contents)
{
	return memcmp((void *)(uintptr_t)twin->address, contents, twin->nbytes) == 0;
}

// What a diff says, against a loop over the bytes.
static void try_diff(uint64_t gap)
{
	struct dt_epoch *open = peek_twins();
	struct dt_changes *changes = dt_changes_new(sizeof *changes);
	uint64_t sizes[SOURCES], seen = 0;
	check(changes && dt_compare_pages(changes, twins, SOURCES, open, gap, UINT64_MAX) == 0);
	const struct dt_change *change = changes->changes;
	for (uint64_t i = 0; i < SOURCES; i++) {
		const uint8_t *now = (const uint8_t *)(uintptr_t)twins[i].address;
		sizes[i] = twins[i].nbytes;
		for (uint64_t at = 0; at < twins[i].nbytes; at++) {
			if (now[at] == twins[i].copy[at])
				continue;
			while (change->region < i || change->stop <= at)
				change++;
			check(change->region == i && change->start <= at);
			check(changes->before[change->at + at - change->start] == twins[i].copy[at]);
			check(changes->after[change->at + at - change->start] == now[at]);
			seen++;
		}
	}
	check(gap ? seen <= changes->bytes : seen == changes->bytes);
	check(dt_changes_valid(changes->changes, changes->change_count, sizes, SOURCES, changes->bytes));
	dt_changes_free(changes);
	dt_epoch_release(open);
}

static void try_snapshot(uint64_t *random)
{
	session = open_tracker(0);
	make_twins();
	for (int round = 0; round < 60; round++) {
		scribble(random);
		try_diff(draw(random, 3) * 5);
		struct dt_epoch *open = peek_twins(), *taken = dt_epoch_new(sizeof *taken);
		if (draw(random, 2)) {
			check(dt_rollback(session, twin_cursor, twin_slices, SOURCES, twins, open, taken) == 0);
		} else {
			check(dt_collect(session, twin_cursor, DT_COLLECT, twin_slices, SOURCES, taken) == 0);
			dt_update(twins, SOURCES, taken);
			taken->settled = 1;
		}
		for (int i = 0; i < SOURCES; i++)
			check(equals(&twins[i], twins[i].copy));
		dt_epoch_release(open);
		dt_epoch_release(taken);
		struct dt_epoch *rest = peek_twins();
		check(rest->pages == 0);
		dt_epoch_release(rest);
	}
	for (int i = 0; i < SOURCES; i++)
		free(twins[i].copy);
	dt_session_release(session);
}

// Saves, with one more allocation allowed at each try: what fails changes nothing and loses no page.
static void save_at_last(struct dt_history *history, uint64_t state)
{
	int error = -ENOMEM;
	for (long most = 0; error; most++) {
		struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
		check(epoch);
		limit_allocations(most);
		error = dt_history_save(history, session, twin_cursor, twin_slices, state, epoch);
		limit_allocations(-1);
		check(error == 0 || (error == -ENOMEM && !dt_history_has(history, state)));
		dt_epoch_release(epoch);
	}
}

static void try_history(uint64_t *random)
{
	uint8_t *copies[STATES + 1][SOURCES];
	session = open_tracker(0);
	make_twins();
	struct dt_history *history = dt_history_new(sizeof *history);
	check(history && dt_history_open(history, twins, SOURCES) == 0);
	for (int state = 0; state <= STATES; state++)
		for (int i = 0; i < SOURCES; i++)
			check(copies[state][i] = malloc(twins[i].nbytes));
	for (int round = 0; round < 200; round++) {
		uint64_t state = 1 + draw(random, STATES);
		scribble(random);
		if (!dt_history_has(history, state)) {
			save_at_last(history, state);
			for (int i = 0; i < SOURCES; i++)
				memcpy(copies[state][i], (void *)(uintptr_t)twins[i].address, twins[i].nbytes);
		} else if (draw(random, 3) == 0) {
			dt_history_drop(history, state);
			check(!dt_history_has(history, state));
		} else {
			struct dt_epoch *open = peek_twins(), *taken = dt_epoch_new(sizeof *taken);
			check(taken && dt_history_plan(history, state, open) == 0);
			check(dt_history_restore(history, session, twin_cursor, twin_slices, state, taken) == 0);
			check(history->current == state);
			for (int i = 0; i < SOURCES; i++)
				check(equals(&twins[i], copies[state][i]));
			dt_epoch_release(open);
			dt_epoch_release(taken);
		}
	}
	struct dt_epoch *open = peek_twins();
	check(dt_history_plan(history, STATES + 1, open) == -EINVAL);
	dt_epoch_release(open);
	for (int state = 0; state <= STATES; state++)
		for (int i = 0; i < SOURCES; i++)
			free(copies[state][i]);
	for (int i = 0; i < SOURCES; i++)
		free(twins[i].copy);
	dt_history_free(history);
	dt_session_release(session);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "fail") == 0)
		return fail_on_purpose();
	uint64_t random = 88172645463325252ULL;
	page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	page_shift = (uint64_t)__builtin_ctzll(page_size);
	memory = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED);
	for (int i = 0; i < 300; i++) {
		try_run_lists(&random);
		try_bitmap(&random);
	}
	try_threads(0, &random);
	try_threads(2, &random);
	try_closing();
	try_fork();
	try_capture(&random);
	try_snapshot(&random);
	try_history(&random);
	puts("all so");
	return 0;
}
