// A page that is being migrated while PAGEMAP_SCAN protects it is not protected: it counts as written once more.
//
//	gcc -O2 -pthread -o migration migration.c && sudo ./migration [MiB [seconds [most]]]
//
// All pages were stored to. One thread looks for pages that are not present, protects them by a scan with
// PM_SCAN_WP_MATCHING, reads them, which waits for the end of their migration, and scans them again. Nobody stores
// between the scans, so the last has to find nothing. Another thread has the kernel compact memory meanwhile, for which
// it needs root. It ends when `most` pages were found; its exit code is 0 then, and 1 if it found none.
#define _GNU_SOURCE
#include "scan.h"

#include <pthread.h>
#include <stdatomic.h>

static atomic_bool ends;

static void *compact(void *unused)
{
	int file = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
	while (file >= 0 && !atomic_load(&ends) && write(file, "1", 1) == 1)
		;
	return unused;
}

// Pages between which others are free: compaction moves them together.
static char *map_scattered(uint64_t bytes)
{
	char *memory = map_small_pages(bytes), *between = map_small_pages(bytes);
	for (uint64_t at = 0; at < bytes; at += page)
		memory[at] = between[at] = 1;
	munmap(between, bytes);
	return memory;
}

static void read_each_page(const char *memory, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += page)
		(void)*(const volatile char *)(memory + at);
}

struct sums {
	uint64_t migrating; // pages that were protected while they were not present
	uint64_t again;     // of them, those that the next scan found written
};

// Adjacent pages that were not present a moment ago.
static void protect(char *memory, uint64_t bytes, struct sums *sums)
{
	struct region found[ENTRIES];
	uint64_t at = (uintptr_t)memory;
	long count = scan_once(&at, at + bytes, WP_MATCHING, WRITTEN, WRITTEN | SWAPPED, found);
	read_each_page(memory, bytes);
	for (long i = 0; i < count; i++) {
		uint64_t length = found[i].end - found[i].start;
		if (!(found[i].categories & SWAPPED))
			continue;
		sums->migrating += length / page;
		sums->again += scan((const char *)(uintptr_t)found[i].start, length, 0);
	}
	add_one_to_each_page(memory, bytes, 1);
}

static void look(char *memory, uint64_t bytes, struct sums *sums)
{
	struct region found[ENTRIES];
	uint64_t at = (uintptr_t)memory;
	long count = scan_once(&at, at + bytes, 0, WRITTEN | SWAPPED, SWAPPED, found);
	for (long i = 0; i < count; i++)
		protect((char *)(uintptr_t)found[i].start, found[i].end - found[i].start, sums);
}

int main(int count, char **arguments)
{
	uint64_t bytes = (uint64_t)(count > 1 ? atoi(arguments[1]) : 32) << 20;
	double end, seconds = count > 2 ? atof(arguments[2]) : 30;
	uint64_t most = count > 3 ? (uint64_t)atoll(arguments[3]) : UINT64_MAX;
	struct sums sums = {0};
	pthread_t other;
	open_both();
	need(pthread_create(&other, NULL, compact, NULL) == 0, "pthread_create");
	for (end = microseconds() + seconds * 1e6; microseconds() < end && sums.again < most;) {
		char *memory = map_scattered(bytes);
		track(memory, bytes);
		for (double stop = microseconds() + 1e5; microseconds() < stop && sums.again < most;)
			look(memory, bytes, &sums);
		munmap(memory, bytes);
	}
	atomic_store(&ends, 1);
	pthread_join(other, NULL);
	printf("%lu pages were protected while they were migrated; %lu of them count as written although nobody "
	       "stored\n",
	       (unsigned long)sums.migrating, (unsigned long)sums.again);
	return !sums.again;
}
