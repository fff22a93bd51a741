// How many TLB shootdowns a PAGEMAP_SCAN that write-protects causes, and what they cost, beside a thread that runs.
//
//	gcc -O2 -pthread -o flushes flushes.c && ./flushes [MiB [rounds]]
//
// It needs two CPUs and no privilege. The counts are the line TLB of /proc/interrupts, which x86 has.
#define _GNU_SOURCE
#include "scan.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { MOST_ROUNDS = 1000, TABLE = 512 };

static atomic_int state; // of the other thread
enum { SLEEPS, RUNS, ENDS };

static void pin(unsigned cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	need(sched_setaffinity(0, sizeof set, &set) == 0, "two CPUs");
}

static void *run(void *unused)
{
	pin(1);
	for (int now = SLEEPS; now != ENDS; now = atomic_load(&state))
		if (now == SLEEPS)
			usleep(50);
	return unused;
}

static long shootdowns(void)
{
	char line[4096];
	long sum = 0;
	FILE *file = fopen("/proc/interrupts", "r");
	while (file && fgets(line, sizeof line, file)) {
		char *at = strstr(line, "TLB:"), *end;
		for (at = at ? at + 4 : NULL; at; at = end > at ? end : NULL)
			sum += strtol(at, &end, 10);
	}
	if (file)
		fclose(file);
	return sum;
}

// The two ways to protect again.
static void by_scan(const char *memory, uint64_t bytes)
{
	scan(memory, bytes, WP_MATCHING);
}

static void by_writeprotect(const char *memory, uint64_t bytes)
{
	uint64_t mode[3] = {(uintptr_t)memory, bytes, 1};
	scan(memory, bytes, 0);
	need(ioctl(uffd, WRITEPROTECT, mode) == 0, "UFFDIO_WRITEPROTECT");
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

struct result {
	double median; // microseconds
	double flushes;
};

// Of every step-th page that was written.
static struct result measure(char *memory, uint64_t bytes, uint64_t step, int beside, int rounds,
			     void (*protect)(const char *, uint64_t))
{
	static double taken[MOST_ROUNDS];
	long flushes = 0;
	for (int round = -1; round < rounds; round++) {
		if (step)
			add_one_to_each_page(memory, bytes, step);
		atomic_store(&state, beside);
		usleep(300); // for the other thread to get there
		long before = shootdowns();
		double begin = microseconds();
		protect(memory, bytes);
		double end = microseconds();
		flushes += round >= 0 ? shootdowns() - before : 0;
		atomic_store(&state, SLEEPS);
		usleep(100);
		if (round >= 0)
			taken[round] = end - begin;
	}
	qsort(taken, (size_t)rounds, sizeof *taken, ascending);
	return (struct result){taken[rounds / 2], (double)flushes / rounds};
}

int main(int count, char **arguments)
{
	static const uint64_t steps[] = {0, TABLE, TABLE / 8, TABLE / 64};
	uint64_t bytes = (uint64_t)(count > 1 ? atoi(arguments[1]) : 1024) << 20;
	int rounds = count > 2 ? atoi(arguments[2]) : 50;
	pthread_t other;
	need(rounds > 0 && rounds <= MOST_ROUNDS && bytes > 0, "arguments");
	pin(0);
	open_both();
	char *memory = map_small_pages(bytes);
	add_one_to_each_page(memory, bytes, 1);
	track(memory, bytes);
	scan(memory, bytes, WP_MATCHING);
	need(pthread_create(&other, NULL, run, NULL) == 0, "pthread_create");
	printf("%lu MiB, %lu page tables, medians of %d rounds, us (TLB shootdowns)\n", (unsigned long)(bytes >> 20),
	       (unsigned long)(bytes / page / TABLE), rounds);
	printf("%-22s %20s %20s %8s %20s\n", "written", "other thread sleeps", "other thread runs", "ratio",
	       "one flush for all");
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		struct result alone = measure(memory, bytes, steps[i], SLEEPS, rounds, by_scan);
		struct result beside = measure(memory, bytes, steps[i], RUNS, rounds, by_scan);
		struct result batched = measure(memory, bytes, steps[i], RUNS, rounds, by_writeprotect);
		char what[40] = "nothing";
		if (steps[i])
			snprintf(what, sizeof what, "%lu of %d pages", (unsigned long)(TABLE / steps[i]), TABLE);
		printf("%-22s %12.0f (%5.0f) %12.0f (%5.0f) %7.1fx %12.0f (%5.0f)\n", what, alone.median, alone.flushes,
		       beside.median, beside.flushes, beside.median / alone.median, batched.median, batched.flushes);
		fflush(stdout);
	}
	atomic_store(&state, ENDS);
	pthread_join(other, NULL);
	return 0;
}
