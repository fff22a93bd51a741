// A runtime without Python: built from dirtytrack's header and sources alone, as a user would. One argument says what
// to try; see test_runtime.py.
#define _GNU_SOURCE
#include <dirtytrack.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define check(condition)                                                                     \
	do {                                                                                 \
		if (!(condition)) {                                                          \
			fprintf(stderr, "runtime.c:%d: not so: %s\n", __LINE__, #condition); \
			_exit(1);                                                            \
		}                                                                            \
	} while (0)

static size_t page;

// What the allocator and the kernel were asked for memory, if the linker wraps these.
static atomic_long allocations;

#ifdef COUNT_ALLOCATIONS
#define counted(type, name, parameters, arguments) \
	type __real_##name parameters;             \
	type __wrap_##name parameters              \
	{                                          \
		allocations++;                     \
		return __real_##name arguments;    \
	}
counted(void *, malloc, (size_t n), (n))
counted(void *, calloc, (size_t n, size_t m), (n, m))
counted(void *, realloc, (void *p, size_t n), (p, n))
counted(void *, mmap, (void *a, size_t n, int p, int f, int d, off_t o), (a, n, p, f, d, o))
counted(int, munmap, (void *a, size_t n), (a, n))
#endif

static char *map(size_t pages)
{
	char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED);
	memset(memory, 1, pages * page);
	return memory;
}

// The answers, one by one

static void answers(void)
{
	struct dt_tracker *tracker;
	uint64_t first, dirty;
	uint8_t out[8];
	char *a = map(20), *b = map(10); // the tenth page keeps b from touching a
	check(dt_tracker_open(0, 0, &tracker) == -EINVAL);
	check(dt_tracker_open(3000, 0, &tracker) == -EINVAL);
	check(dt_tracker_open(page, 16, &tracker) == -EINVAL);
	check(dt_tracker_open(page, DT_BITS, &tracker) == 0);
	check(dt_tracker_cards(tracker) == 0 && dt_tracker_map_bytes(tracker) == 0);
	check(dt_tracker_take(tracker, out, 0, NULL) == 0);
	check(dt_tracker_add(tracker, a, 20 * page, DT_DENSE, &first) == 0 && first == 0);
	check(dt_tracker_add(tracker, a + 19 * page, page, DT_DENSE, &first) == -DT_EOVERLAP);
	check(dt_tracker_add(tracker, b + 1, page, DT_DENSE, NULL) == -DT_EALIGN);
	check(dt_tracker_add(tracker, b, page + 1, DT_DENSE, NULL) == -DT_EALIGN);
	check(dt_tracker_add(tracker, b, 0, DT_DENSE, NULL) == -EINVAL);
	check(dt_tracker_add(tracker, b, page, 8, NULL) == -EINVAL);
	check(dt_tracker_add(tracker, (void *)(16 * page), page, DT_DENSE, NULL) == -ENOMEM);
	check(dt_tracker_add(tracker, b, 9 * page, DT_SPARSE, &first) == 0 && first == 24);
	check(dt_tracker_cards(tracker) == 33 && dt_tracker_map_bytes(tracker) == 5);
	check(dt_tracker_take(tracker, out, 4, NULL) == -DT_ESIZE);
	check(dt_tracker_take(tracker, out, 5, &dirty) == 0);

	a[0] = a[19 * page] = b[8 * page] = 2;
	for (int turn = 0; turn < 2; turn++) {
		memset(out, 0xff, sizeof out);
		check((turn ? dt_tracker_take : dt_tracker_peek)(tracker, out, 5, &dirty) == 0 && dirty == 3);
		check(!memcmp(out, "\x01\x00\x08\x00\x01\xff", 6));
	}
	check(dt_tracker_take(tracker, out, 5, &dirty) == 0 && dirty == 0);
	check(dt_tracker_mark(tracker, b + page, 1) == 0 &&
	      dt_tracker_mark(tracker, b + 9 * page - 1, 2) == -DT_EUNTRACKED);
	check(dt_tracker_take(tracker, out, 5, &dirty) == 0 && dirty == 1 && out[3] == 2);

	struct dt_range lost;
	check(dt_tracker_lost(tracker, NULL, 0) == 0);
	check(munmap(a + 5 * page, page) == 0);
	check(dt_tracker_take(tracker, out, 5, &dirty) == 0 && dirty == 20);
	check(dt_tracker_lost(tracker, &lost, 1) == 1 && lost.start == a && lost.bytes == 20 * page);
	check(lost.first_card == 0 && lost.cards == 20);
	check(dt_tracker_remove(tracker, b + page, 9 * page) == -DT_EUNTRACKED);
	check(dt_tracker_remove(tracker, a, 20 * page) == 0 && dt_tracker_lost(tracker, NULL, 0) == 0);
	check(dt_tracker_take(tracker, out, 5, &dirty) == 0 && dirty == 0);
	check(dt_tracker_add(tracker, a, 5 * page, DT_DENSE, &first) == 0 && first == 0);

	int status;
	pid_t child = fork();
	if (child == 0) {
		check(dt_tracker_take(tracker, out, 5, NULL) == -DT_EFORKED);
		check(dt_tracker_mark(tracker, b, 1) == -DT_EFORKED &&
		      dt_tracker_remove(tracker, b, page) == -DT_EFORKED);
		check(dt_tracker_add(tracker, a, page, 0, NULL) == -DT_EFORKED && dt_tracker_cards(tracker) == 0);
		check(dt_tracker_lost(tracker, NULL, 0) == -DT_EFORKED);
		dt_tracker_close(tracker);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child && status == 0);
	b[0] = 3;
	check(dt_tracker_take(tracker, out, 5, &dirty) == 0 && dirty == 1 && out[3] == 1);
	dt_tracker_close(tracker);
	dt_tracker_close(NULL);
	munmap(a, 20 * page);
	munmap(b, 10 * page);
}

// Pages that were dropped are dirty in a dense range; in a sparse one when they are marked or touched.
static void drops(unsigned flags)
{
	struct dt_tracker *tracker;
	uint8_t out;
	uint64_t dirty;
	char *memory = map(8);
	check(dt_tracker_open(page, DT_BITS, &tracker) == 0);
	check(dt_tracker_add(tracker, memory, 8 * page, flags, NULL) == 0);
	check(dt_tracker_take(tracker, &out, 1, &dirty) == 0);
	memory[0] = 2;
	check(madvise(memory, 3 * page, MADV_DONTNEED) == 0);
	check(dt_tracker_peek(tracker, &out, 1, &dirty) == 0 && out == (flags == DT_SPARSE ? 0 : 7));
	check(dt_tracker_mark(tracker, memory, 2 * page) == 0);
	check(dt_tracker_take(tracker, &out, 1, &dirty) == 0 && out == (flags == DT_SPARSE ? 3 : 7));
	check(((volatile char *)memory)[2 * page] == 0);
	check(dt_tracker_take(tracker, &out, 1, &dirty) == 0 && out == (flags == DT_SPARSE ? 4 : 0));
	dt_tracker_close(tracker);
	munmap(memory, 8 * page);
}

static int differs(void *context, void *start, size_t bytes, const void *before, const void *after)
{
	(void)start, (void)before, (void)after;
	*(size_t *)context += bytes;
	return 0;
}

// Where nothing differs a snapshot takes on nothing, and dropped pages go back.
static void snapshots(unsigned flags)
{
	struct dt_snapshot *snapshot;
	char *memory = map(8);
	size_t pages, bytes = 0;
	check(dt_snapshot_open(&snapshot) == 0);
	check(dt_snapshot_add(snapshot, memory, 8 * page, flags) == 0);
	check(dt_snapshot_diff(snapshot, DT_LIST_TAKE, differs, &bytes) == 0 && bytes == 0);
	check(madvise(memory, 2 * page, MADV_DONTNEED) == 0);
	check(dt_snapshot_diff(snapshot, 0, differs, &bytes) == 0 && bytes == 2 * page);
	check(dt_snapshot_rollback(snapshot, &pages) == 0 && pages == 2 && memory[0] == 1 && memory[page] == 1);
	check(madvise(memory + 3 * page, 2 * page, MADV_DONTNEED) == 0);
	check(dt_snapshot_advance(snapshot, &pages) == 0 && pages == 2);
	memory[3 * page] = 5;
	check(dt_snapshot_rollback(snapshot, &pages) == 0 && memory[3 * page] == 0 && memory[4 * page] == 0);
	dt_snapshot_close(snapshot);
	munmap(memory, 8 * page);
}

// Of a file, what nobody has touched is not zeros.
static void file_snapshots(unsigned flags, int sharing)
{
	struct dt_snapshot *snapshot;
	int fd = memfd_create("file", MFD_CLOEXEC);
	uint8_t *bytes = malloc(8 * page);
	memset(bytes, 7, 8 * page);
	check(fd >= 0 && write(fd, bytes, 8 * page) == (ssize_t)(8 * page));
	uint8_t *memory = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE, sharing, fd, 0);
	check(memory != MAP_FAILED && dt_snapshot_open(&snapshot) == 0);
	check(dt_snapshot_add(snapshot, memory, 8 * page, flags) == 0);
	memory[page] = 9;
	check(dt_snapshot_rollback(snapshot, NULL) == 0 && memcmp(memory, bytes, 8 * page) == 0);
	dt_snapshot_close(snapshot);
	munmap(memory, 8 * page);
	close(fd);
	free(bytes);
}

// What is shared can't be sparse: not when it is added, nor when it comes into a range that is.
static void shared_memory(void)
{
	struct dt_tracker *tracker;
	struct dt_snapshot *snapshot;
	char *memory = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), *own = map(4);
	check(memory != MAP_FAILED);
	check(dt_tracker_open(page, DT_BITS, &tracker) == 0 && dt_snapshot_open(&snapshot) == 0);
	check(dt_tracker_add(tracker, memory, 4 * page, DT_SPARSE, NULL) == -EINVAL);
	check(dt_snapshot_add(snapshot, memory, 4 * page, DT_SPARSE) == -EINVAL);
	check(dt_tracker_add(tracker, memory, 4 * page, DT_DENSE, NULL) == 0);
	check(dt_tracker_add(tracker, own, 4 * page, DT_SPARSE, NULL) == 0);
	check(mmap(own, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == own);
	check(dt_tracker_replace(tracker, own, page) == -EINVAL);
	dt_snapshot_close(snapshot);
	dt_tracker_close(tracker);
	munmap(memory, 4 * page);
	munmap(own, 4 * page);
}

// Nothing but an error comes of NULL, and of what makes no sense.
static void refusals(void)
{
	struct dt_tracker *tracker;
	struct dt_range range;
	void *address;
	size_t count = 1;
	uint8_t out;
	char *memory = map(4);
	check(dt_tracker_open(page, DT_BITS, NULL) == -EINVAL &&
	      dt_tracker_open_with(page, 0, NULL, &tracker) == -EINVAL);
	check(dt_tracker_open(page, DT_BITS, &tracker) == 0);
	check(dt_tracker_add(NULL, memory, page, 0, NULL) == -EINVAL &&
	      dt_tracker_add(tracker, NULL, 0, 0, NULL) == -EINVAL);
	check(dt_tracker_add(tracker, memory, SIZE_MAX - page + 1, 0, NULL) == -EINVAL);
	check(dt_tracker_add(tracker, memory, 4 * page, DT_DENSE, NULL) == 0);
	check(dt_tracker_remove(NULL, memory, page) == -EINVAL && dt_tracker_replace(NULL, memory, page) == -EINVAL);
	check(dt_tracker_cards(NULL) == 0 && dt_tracker_map_bytes(NULL) == 0 && dt_tracker_prepare(NULL) == -EINVAL);
	check(dt_tracker_take(NULL, &out, 1, NULL) == -EINVAL && dt_tracker_peek(tracker, NULL, 1, NULL) == -EINVAL);
	check(dt_tracker_take_range(tracker, memory, page, NULL, 1, NULL) == -EINVAL);
	check(dt_tracker_take_range(tracker, memory, page, &out, 0, NULL) == -DT_ESIZE);
	check(dt_tracker_peek_range(NULL, memory, page, &out, 1, NULL) == -EINVAL);
	check(dt_tracker_runs(NULL, 0, NULL, SIZE_MAX, &range, 1) == -EINVAL);
	check(dt_tracker_runs(tracker, 0, NULL, SIZE_MAX, NULL, 1) == -EINVAL);
	check(dt_tracker_runs(tracker, 0, NULL, 0, &range, 1) == 0 &&
	      dt_tracker_runs(tracker, 0, memory, page, NULL, 0) == 0);
	check(dt_write_watch(tracker, 0, memory, page, NULL, &count, NULL) == -EINVAL);
	check(dt_write_watch(tracker, 0, memory, page, &address, NULL, NULL) == -EINVAL);
	check(dt_write_watch(tracker, 4, memory, page, &address, &count, NULL) == -EINVAL);
	check(dt_write_watch(tracker, 0, memory, 5 * page, &address, &count, NULL) == -DT_EUNTRACKED);
	check(dt_reset_write_watch(NULL, memory, page) == -EINVAL &&
	      dt_reset_write_watch(tracker, memory, 0) == -EINVAL);
	check(dt_tracker_ranges(tracker, NULL, 1) == -EINVAL && dt_tracker_lost(NULL, NULL, 0) == -EINVAL);
	check(dt_tracker_unstopped(tracker, NULL, 1) == -EINVAL && dt_tracker_mark(NULL, memory, 1) == -EINVAL);
	check(dt_tracker_stop_threads(NULL, 1, 1) == -EINVAL);
	check(munmap(memory, page) == 0 &&
	      dt_write_watch(tracker, 0, memory, page, &address, &count, NULL) == -DT_ELOST);
	dt_tracker_close(tracker);
	munmap(memory, 4 * page);
	check(dt_version() == DT_VERSION);
	check(!strcmp(dt_strerror(-DT_EFORKED), dt_strerror(DT_EFORKED)) && strstr(dt_strerror(-DT_EFORKED), "parent"));
	check(*dt_strerror(INT_MIN) && *dt_strerror(12345) && strstr(dt_strerror(-EBADF), "closed"));
	for (int error = DT_EFORKED; error <= DT_EMISSED; error++)
		check(strcmp(dt_strerror(error), dt_strerror(INT_MAX)) != 0);
}

// Descriptors of the caller's, and what becomes of those of the library when somebody closes them.
static void descriptors(void)
{
	struct dt_tracker *tracker;
	uint8_t out;
	uint64_t dirty;
	char *memory = map(4);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), maps = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC), foreign;
	struct dt_descriptors given = {(int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1), maps, tasks};
	check(given.userfaultfd >= 0 && maps >= 0 && tasks >= 0);
	check(dt_tracker_open_with(page, DT_STOP_THREADS, &given, &tracker) == 0);
	close(given.userfaultfd);
	close(maps);
	close(tasks);
	check(dt_tracker_stop_threads(tracker, SIGUSR2, 1000000) == 0); // by the descriptor that it has
	check(dt_tracker_add(tracker, memory, 4 * page, DT_DENSE, NULL) == 0);
	memory[page] = 7;
	check(dt_tracker_take(tracker, &out, 1, &dirty) == 0 && out == 2 && dirty == 1);
	memory[2 * page] = 7;

	int kept[16];
	for (int fd = 3; fd < 16; fd++) { // as a daemon does
		kept[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
		if (kept[fd] >= 0)
			close(fd);
	}
	check(dt_tracker_take(tracker, &out, 1, &dirty) == -EBADF && out == 15);
	check(dt_tracker_runs(tracker, DT_LIST_TAKE, NULL, SIZE_MAX, NULL, 0) == -EBADF);
	for (int fd = 3; fd < 16; fd++)
		if (kept[fd] >= 0)
			check(dup2(kept[fd], fd) == fd && close(kept[fd]) == 0);
	check(dt_tracker_take(tracker, &out, 1, &dirty) == 0 && out & 4);
	dt_tracker_close(tracker);

	given = (struct dt_descriptors){null, -1, -1};
	check(dt_tracker_open_with(page, 0, &given, &tracker) == -ENOTTY);
	given = (struct dt_descriptors){-1, null, -1};
	check(dt_tracker_open_with(page, 0, &given, &tracker) == -EOPNOTSUPP);
	given = (struct dt_descriptors){-1, 1000, -1};
	check(dt_tracker_open_with(page, 0, &given, &tracker) == -EBADF);
	given = (struct dt_descriptors){-EACCES, -1, -1}; // an error in the place of a descriptor
	check(dt_tracker_open_with(page, 0, &given, &tracker) == -EBADF);
	given = (struct dt_descriptors){-1, -1, -EACCES};
	check(dt_tracker_open_with(page, DT_STOP_THREADS, &given, &tracker) == -EBADF);
	char path[64];
	pid_t child = fork();
	if (child == 0)
		_exit(pause());
	snprintf(path, sizeof path, "/proc/%d/pagemap", child);
	check((foreign = open(path, O_RDONLY | O_CLOEXEC)) >= 0);
	given = (struct dt_descriptors){-1, foreign, -1};
	check(dt_tracker_open_with(page, 0, &given, &tracker) == -EINVAL);
	kill(child, SIGKILL);
	check(waitpid(child, NULL, 0) == child);
	close(foreign);
	close(null);
	munmap(memory, 4 * page);
}

// All memory of the library comes from where it was told to.
static size_t given_out;

static void *give_out(size_t bytes, void *context)
{
	check(context == &given_out && bytes && bytes % 64 == 0);
	given_out += bytes;
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void take_in(void *memory, size_t bytes, void *context)
{
	check(context == &given_out && bytes % 64 == 0);
	munmap(memory, bytes);
}

static void allocator(void)
{
	struct dt_tracker *tracker;
	struct dt_snapshot *snapshot;
	uint8_t *out = malloc(1 << 16);
	check(dt_set_memory(NULL, take_in, NULL) == -EINVAL);
	check(dt_set_memory(give_out, take_in, &given_out) == 0);
	check(dt_tracker_open(page, DT_BITS, &tracker) == 0 && given_out);
	size_t before = given_out;
	char *memory = map(1 << 16);
	check(dt_tracker_add(tracker, memory, page << 16, DT_DENSE, NULL) == 0 && given_out > before);
	check(dt_set_memory(give_out, take_in, &given_out) == -EBUSY);
	check(dt_tracker_take(tracker, out, 1 << 13, NULL) == 0);
	dt_tracker_close(tracker);
	check(dt_snapshot_open(&snapshot) == 0 && dt_snapshot_add(snapshot, memory + 1, 1000001, DT_DENSE) == 0);
	memory[7] = 9;
	check(dt_snapshot_rollback(snapshot, NULL) == 0 && memory[7] == 1);
	dt_snapshot_close(snapshot);
	munmap(memory, page << 16);
	free(out);
}

// A runtime forks at the instant at which another of its threads changes a tracker and a snapshot: here wherever memory
// comes and goes for them. The child closes both. Half of what it would give back may be gone already.

enum { MANY = 5000, CHUNK = 1 << 18 };

static struct dt_tracker *changing_tracker;
static struct dt_snapshot *changing_snapshot;
static size_t forks;
static bool is_child;

static void fork_now(size_t bytes)
{
	int status;
	check(!is_child);                         // it asks for no memory, and gives none back
	if (bytes == CHUNK || !changing_snapshot) // small blocks come from chunks, under a lock that a fork waits for
		return;
	forks++;
	pid_t child = fork();
	if (child == 0) {
		is_child = true;
		dt_tracker_close(changing_tracker);
		dt_snapshot_close(changing_snapshot);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child && status == 0);
}

static void *give_out_and_fork(size_t bytes, void *context)
{
	fork_now(bytes);
	return give_out(bytes, context);
}

static void take_in_and_fork(void *memory, size_t bytes, void *context)
{
	take_in(memory, bytes, context);
	fork_now(bytes);
}

static void forks_within(void)
{
	static uint8_t out[8 * (MANY - 1) + 1]; // each range begins at a multiple of eight cards
	uint64_t dirty;
	size_t pages;
	check(dt_set_memory(give_out_and_fork, take_in_and_fork, &given_out) == 0);
	check(dt_tracker_open(page, DT_BYTES, &changing_tracker) == 0 && dt_snapshot_open(&changing_snapshot) == 0);
	char *memory = map(MANY), *large = map(1 << 18);
	for (size_t i = 0; i < MANY; i++)
		check(dt_tracker_add(changing_tracker, memory + i * page, page, DT_DENSE, NULL) == 0);
	check(dt_tracker_take(changing_tracker, out, sizeof out, &dirty) == 0);
	memory[7 * page] = memory[4999 * page] = 1;
	check(dt_tracker_take(changing_tracker, out, sizeof out, &dirty) == 0 && dirty == 2);
	check(out[8 * 7] && out[8 * 4999]);
	for (size_t i = 0; i < MANY; i += 2)
		check(dt_tracker_remove(changing_tracker, memory + i * page, page) == 0);
	check(dt_tracker_add(changing_tracker, large, page << 18, DT_SPARSE, NULL) == 0);
	check(dt_tracker_remove(changing_tracker, large, page << 18) == 0);
	for (size_t i = 0; i < MANY; i += 2)
		check(dt_snapshot_add(changing_snapshot, memory + i * page, page, DT_DENSE) == 0);
	memory[8 * page] = 2;
	check(dt_snapshot_rollback(changing_snapshot, &pages) == 0 && pages == 1 && memory[8 * page] == 1);
	check(forks > 20);
	struct dt_snapshot *snapshot = changing_snapshot;
	changing_snapshot = NULL; // from here on it may not be closed again
	dt_tracker_close(changing_tracker);
	dt_snapshot_close(snapshot);
	munmap(memory, MANY * page);
	munmap(large, page << 18);
}

// A tracker that keeps huge pages reports what any does, while they come back and when they have.
static void keep_huge_pages(void)
{
	const size_t pages = 512, bytes = pages * page;
	struct dt_tracker *tracker;
	uint64_t dirty;
	uint8_t out[512];
	char *mapped = map(2 * pages), *memory = mapped + (-(uintptr_t)mapped & (bytes - 1));
	madvise(mapped, 2 * bytes, MADV_HUGEPAGE);
	memset(mapped, 2, 2 * bytes);
	check(dt_tracker_open(page, DT_BYTES | DT_KEEP_HUGE_PAGES, &tracker) == 0);
	check(dt_tracker_add(tracker, memory, bytes, DT_DENSE, NULL) == 0);
	for (size_t round = 0; round < 40; round++) {
		memory[round * 11 % pages * page]++;
		check(dt_tracker_take(tracker, out, pages, &dirty) == 0 && dirty == 1 && out[round * 11 % pages]);
		for (int i = 0; i < 20; i++)
			check(dt_tracker_peek(tracker, out, pages, &dirty) == 0 && dirty == 0);
		usleep(2000);
	}
	int status;
	pid_t child = fork();
	if (child == 0) {
		check(dt_tracker_take(tracker, out, pages, NULL) == -DT_EFORKED);
		dt_tracker_close(tracker);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child && status == 0);
	memory[0]++;
	check(dt_tracker_take(tracker, out, pages, &dirty) == 0 && dirty == 1 && out[0]);
	dt_tracker_close(tracker);
	munmap(mapped, 2 * bytes);
}

// Small and large cards, as bytes

static void cards(size_t card_size)
{
	struct dt_tracker *tracker;
	uint64_t dirty;
	char *memory = map(64), *heap = memory + -(size_t)memory % (16 * page);
	size_t pages = 32, n = pages * page / card_size;
	uint8_t *out = malloc(n), *wanted = malloc(n);
	check(dt_tracker_open(card_size, DT_BYTES, &tracker) == 0);
	check(dt_tracker_add(tracker, heap, pages * page, DT_DENSE, NULL) == 0);
	check(dt_tracker_map_bytes(tracker) == n);
	for (unsigned seed = 1; seed < 50; seed++) {
		memset(wanted, 0, n);
		uint64_t count = 0;
		for (unsigned i = 0; i < seed % 9; i++) {
			size_t at = seed * 7919u * (i + 1) % (pages * page);
			heap[at]++;
			size_t begin = at / page * page, end = begin + page;
			for (size_t card = begin / card_size; card * card_size < end; card++)
				wanted[card] = 1;
		}
		for (size_t card = 0; card < n; card++)
			count += wanted[card];
		check(dt_tracker_take(tracker, out, n, &dirty) == 0 && dirty == count && !memcmp(out, wanted, n));
	}
	dt_tracker_close(tracker);
	free(out);
	free(wanted);
	munmap(memory, 64 * page);
}

// Steady state

static void steady(void)
{
	enum { PAGES = 4096 };
	struct dt_tracker *tracker;
	uint8_t out[PAGES / 8];
	char *heap = map(PAGES);
	check(dt_tracker_open(page, DT_BITS, &tracker) == 0);
	check(dt_tracker_add(tracker, heap, PAGES * page, DT_DENSE, NULL) == 0);
	for (size_t at = 2500; at < 3500; at += 5) // of which each leaves one range more
		check(dt_tracker_remove(tracker, heap + at * page, page) == 0);
	check(dt_tracker_prepare(tracker) == 0);
	long before = allocations;
	for (int turn = 0; turn < 2000; turn++) {
		for (int i = 0; i < turn % 64; i++)
			heap[(size_t)(i * 61 + turn) % PAGES * page]++;
		check(dt_tracker_peek(tracker, out, sizeof out, NULL) == 0);
		check(dt_tracker_mark(tracker, heap, 1) == 0);
		check(dt_tracker_take_range(tracker, heap + page, 999 * page, out, 125, NULL) == 0);
		struct dt_range runs[8];
		check(dt_tracker_runs(tracker, DT_LIST_TAKE, heap + 1000 * page, 1000 * page, runs, 8) >= 0);
		check(dt_tracker_take(tracker, out, sizeof out, NULL) == 0);
	}
	printf("%ld allocations\n", allocations - before);
	dt_tracker_close(tracker);
	munmap(heap, PAGES * page);
}

// Mutators beside takes

enum { MUTATORS = 2, HEAP_PAGES = 2048, LEAST_TAKES = 20, LEAST_OWED = 20 };

static char *heap;
static atomic_ulong begun[HEAP_PAGES], done[HEAP_PAGES]; // stores to each page; only one thread stores to a page
static long stores_each;
static atomic_int running;
static atomic_long takes, owed; // cards that a take had to have

static _Atomic(uint64_t) *word(size_t at)
{
	return (_Atomic(uint64_t) *)(heap + at * page + at * 8 % page);
}

static void *mutate(void *argument)
{
	size_t me = (size_t)argument;
	uint64_t state = 88172645463325252u + me;
	for (long i = 0; i < stores_each || takes < LEAST_TAKES || owed < LEAST_OWED; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		size_t at = state % (HEAP_PAGES / MUTATORS) * MUTATORS + me;
		if (i % 4) // mostly to a few hot pages
			at = at % 64 / MUTATORS * MUTATORS + me;
		atomic_fetch_add(&begun[at], 1);
		atomic_store_explicit(word(at), (uint64_t)i + 1, memory_order_relaxed);
		atomic_fetch_add(&done[at], 1);
	}
	running--;
	return NULL;
}

// Every store that began after the last take has ended and was done before this one begins is in this one. And with a
// copy of what was said to be dirty nothing is missing in the end.
static void mutators(long stores, bool drop)
{
	static unsigned long after[HEAP_PAGES], before[HEAP_PAGES];
	static uint64_t copy[HEAP_PAGES];
	struct dt_tracker *tracker;
	pthread_t threads[MUTATORS];
	uint8_t out[HEAP_PAGES];
	uint64_t dirty;
	long reported = 0;
	heap = map(HEAP_PAGES);
	memset(heap, 0, HEAP_PAGES * page);
	stores_each = stores / MUTATORS;
	running = MUTATORS;
	check(dt_tracker_open(page, DT_BYTES, &tracker) == 0);
	check(dt_tracker_add(tracker, heap, HEAP_PAGES * page, DT_DENSE, NULL) == 0);
	for (size_t i = 0; i < MUTATORS; i++)
		check(pthread_create(&threads[i], NULL, mutate, (void *)i) == 0);
	for (bool last = false; !last; takes++) {
		last = running == 0;
		for (size_t i = 0; i < HEAP_PAGES; i++)
			before[i] = done[i];
		if (takes % 3 == 0)
			check(dt_tracker_peek(tracker, out, sizeof out, &dirty) == 0);
		check(dt_tracker_take(tracker, out, sizeof out, &dirty) == 0);
		if (drop)
			memset(out, 0, sizeof out);
		for (size_t i = 0; i < HEAP_PAGES; i++) {
			owed += before[i] > after[i];
			check(out[i] || before[i] <= after[i]);
			if (out[i])
				copy[i] = atomic_load_explicit(word(i), memory_order_relaxed);
			after[i] = begun[i];
		}
		reported += (long)dirty;
	}
	for (size_t i = 0; i < MUTATORS; i++)
		check(pthread_join(threads[i], NULL) == 0);
	for (size_t i = 0; i < HEAP_PAGES; i++)
		check(copy[i] == *word(i));
	check(dt_tracker_take(tracker, out, sizeof out, &dirty) == 0 && dirty == 0);
	printf("%ld takes, %ld cards, %ld owed\n", (long)takes, reported, (long)owed);
	dt_tracker_close(tracker);
	munmap(heap, HEAP_PAGES * page);
}

// Descriptors and mappings

static void cycles(long count)
{
	char *memory = map(4);
	for (long i = 0; i < count; i++) {
		struct dt_tracker *tracker;
		uint8_t out;
		check(dt_tracker_open(page, DT_BITS, &tracker) == 0);
		check(dt_tracker_add(tracker, memory, 4 * page, DT_DENSE, NULL) == 0);
		memory[0]++;
		check(dt_tracker_take(tracker, &out, 1, NULL) == 0 && out == 1);
		dt_tracker_close(tracker);
	}
	int fd = dup(0);
	check(fd < 10);
	close(fd);
	munmap(memory, 4 * page);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "answers";
	long count = argc > 2 ? atol(argv[2]) : 0;
	page = (size_t)sysconf(_SC_PAGESIZE);
	if (!strcmp(what, "answers")) {
		answers();
		refusals();
		descriptors();
		drops(DT_DENSE);
		drops(DT_SPARSE);
		snapshots(DT_DENSE);
		snapshots(DT_SPARSE);
		file_snapshots(DT_DENSE, MAP_PRIVATE);
		file_snapshots(DT_DENSE, MAP_SHARED);
		file_snapshots(DT_SPARSE, MAP_PRIVATE);
		shared_memory();
		keep_huge_pages();
		for (size_t size = 64; size <= 16 * page; size *= 4)
			cards(size);
		cycles(50);
	} else if (!strcmp(what, "steady")) {
		steady();
		return 0;
	} else if (!strcmp(what, "allocator")) {
		allocator();
	} else if (!strcmp(what, "forks")) {
		forks_within();
	} else if (!strcmp(what, "mutators") || !strcmp(what, "drop")) {
		mutators(count, !strcmp(what, "drop"));
		return 0;
	} else {
		return 2;
	}
	puts("all so");
	return 0;
}
