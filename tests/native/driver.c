// Runs the parts of the driver: the C core under the sanitizers, from a main of its own.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "backends/compare.h"
#include "driver.h"

struct dt_session *session;
uint64_t page_size, page_shift;
char *memory, *arena;

uint64_t draw(uint64_t *state, uint64_t below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state % below;
}

struct dt_session *open_tracker(enum dt_hole_reporting holes)
{
	uint64_t features = DT_UFFD_FEATURE_WP_ASYNC, cursor;
	int userfaultfd = dt_uffd_syscall(O_CLOEXEC | O_NONBLOCK | DT_UFFD_USER_MODE_ONLY);
	check(userfaultfd >= 0);
	check(dt_uffd_api(userfaultfd, &features) == 0);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	check(pagemap >= 0);
	struct dt_session *opened;
	check(dt_session_open_wp_async(userfaultfd, pagemap, holes, &opened, &cursor) == 0);
	return opened;
}

struct dt_session *open_compare(void)
{
	struct dt_session *opened;
	uint64_t cursor;
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	check(pagemap >= 0);
	check(dt_session_open_compare(pagemap, &opened, &cursor) == 0);
	return opened;
}

uint64_t add(uint64_t start, uint64_t stop)
{
	struct dt_failure failure;
	uint64_t region, base = (uintptr_t)memory;
	check(dt_session_add(session, base + start * page_size, base + stop * page_size, (uint32_t)page_shift, 0,
			     &region, &failure) == 0);
	return region;
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

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "fail") == 0)
		return fail_on_purpose();
	uint64_t random = 88172645463325252ULL;
	page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	page_shift = (uint64_t)__builtin_ctzll(page_size);
	memory = mmap(NULL, (PAGES + 1) * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED);
	memory += (uintptr_t)memory % (2 * page_size); // the largest cards have two pages
	arena = memory + (-(uintptr_t)memory & (4 * page_size - 1));
	for (int i = 0; i < 300; i++) {
		try_run_lists(&random);
		try_bitmap(&random);
		try_tally(&random);
		try_extents(&random);
	}
	try_threads(DT_HOLES_REPORTED, &random);
	try_threads(DT_HOLES_UNREPORTED_FOR_TESTS, &random);
	try_closing();
	try_fork();
	try_capture(&random);
	try_snapshot(&random);
	try_history(&random);
	try_mirror(&random);
	try_cards(&random);
	try_write_watch(&random);
	try_ranges(&random);
	try_api(&random);
	try_resets(&random);
	try_kinds(&random);
	try_huge(&random);
	try_files();
	try_hashes();
	try_pack(&random);
	try_owners(&random);
	try_following(&random);
	try_file_tables();
	try_mailbox(&random);
	try_stops();
	try_failures();
	puts("all so");
	return 0;
}
