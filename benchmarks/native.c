// What the benchmarks drive, or compare with, without an interpreter in between. Compiled when they run. Addresses
// are passed as integers; everything is called from one thread at a time, but for bench_spin.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct pm_scan_arg {
	uint64_t fields[12];
};

struct run {
	uint64_t start, stop;
};

// One PAGEMAP_SCAN for each of the arguments. 0 or -errno.
int bench_scan_each(int fd, uintptr_t args, size_t count)
{
	struct pm_scan_arg *arg = (struct pm_scan_arg *)args;
	for (size_t i = 0; i < count; i++)
		if (ioctl(fd, _IOWR('f', 16, struct pm_scan_arg), &arg[i]) < 0)
			return -errno;
	return 0;
}

// Stores a zero to the first byte of each page listed.
void bench_store(uintptr_t base, uintptr_t pages, size_t count, size_t page_size)
{
	const uint64_t *page = (const uint64_t *)pages;
	for (size_t i = 0; i < count; i++)
		*(volatile char *)(base + page[i] * page_size) = 0;
}

// Loads at random from [base, base + bytes), a power of two; each address depends on the value loaded before it.
uint64_t bench_load(uintptr_t base, size_t bytes, size_t count)
{
	uint64_t at = 0;
	for (size_t i = 0; i < count; i++) {
		at = at * 6364136223846793005u + 1442695040888963407u;
		at += *(volatile unsigned char *)(base + ((at >> 20) & (bytes - 1)));
	}
	return at;
}

// Copies the pages of the runs.
void bench_copy(uintptr_t to, uintptr_t from, uintptr_t runs, size_t count, size_t page_size)
{
	const struct run *run = (const struct run *)runs;
	for (size_t i = 0; i < count; i++)
		memcpy((char *)to + run[i].start * page_size, (const char *)from + run[i].start * page_size,
		       (run[i].stop - run[i].start) * page_size);
}

// Copies the pages of the runs, one behind the other.
void bench_gather(uintptr_t to, uintptr_t from, uintptr_t runs, size_t count, size_t page_size)
{
	const struct run *run = (const struct run *)runs;
	for (size_t i = 0; i < count; i++) {
		size_t bytes = (run[i].stop - run[i].start) * page_size;
		memcpy((char *)to, (const char *)from + run[i].start * page_size, bytes);
		to += bytes;
	}
}

// The same, and then writes them to a file. 0 or -errno.
int bench_gather_and_write(int fd, uintptr_t to, uintptr_t from, uintptr_t runs, size_t count, size_t page_size)
{
	const struct run *run = (const struct run *)runs;
	size_t bytes = 0;
	bench_gather(to, from, runs, count, page_size);
	for (size_t i = 0; i < count; i++)
		bytes += (run[i].stop - run[i].start) * page_size;
	for (size_t done = 0; done < bytes;) {
		ssize_t written = write(fd, (const char *)to + done, bytes - done);
		if (written < 0)
			return -errno;
		done += (size_t)written;
	}
	return 0;
}

// Compares the pages of the runs; returns how many runs differ.
size_t bench_compare_runs(uintptr_t a, uintptr_t b, uintptr_t runs, size_t count, size_t page_size)
{
	const struct run *run = (const struct run *)runs;
	size_t found = 0;
	for (size_t i = 0; i < count; i++)
		found += memcmp((const char *)a + run[i].start * page_size, (const char *)b + run[i].start * page_size,
				(run[i].stop - run[i].start) * page_size) != 0;
	return found;
}

// Lists the pages in which two pieces of memory differ; returns their number.
size_t bench_compare(uintptr_t a, uintptr_t b, size_t bytes, size_t page_size, uintptr_t pages)
{
	uint64_t *page = (uint64_t *)pages;
	size_t found = 0;
	for (size_t at = 0; at < bytes; at += page_size)
		if (memcmp((const char *)a + at, (const char *)b + at, page_size))
			page[found++] = at / page_size;
	return found;
}

static uintptr_t guarded, guarded_stop, guarded_page;
static struct sigaction before;

// The classic write barrier: the first store to a page is a signal, whose handler opens the page.
static void open_page(int signal, siginfo_t *info, void *context)
{
	(void)context;
	uintptr_t at = (uintptr_t)info->si_addr;
	if (at < guarded || at >= guarded_stop ||
	    mprotect((void *)(at & ~(guarded_page - 1)), guarded_page, PROT_READ | PROT_WRITE) < 0)
		sigaction(signal, &before, NULL); // not ours, or out of mappings: the store fails as it would have
}

// Write-protects [base, base + bytes) and opens its pages one by one as they are written. 0 or -errno.
int bench_guard(uintptr_t base, size_t bytes, size_t page_size)
{
	struct sigaction action = {.sa_sigaction = open_page, .sa_flags = SA_SIGINFO};
	guarded = base;
	guarded_stop = base + bytes;
	guarded_page = page_size;
	if (mprotect((void *)base, bytes, PROT_READ) < 0 || sigaction(SIGSEGV, &action, &before) < 0)
		return -errno;
	return 0;
}

// Ends it. 0 or -errno.
int bench_unguard(void)
{
	if (mprotect((void *)guarded, guarded_stop - guarded, PROT_READ | PROT_WRITE) < 0 ||
	    sigaction(SIGSEGV, &before, NULL) < 0)
		return -errno;
	return 0;
}

// Runs until the second flag is set; sets the first one when it begins.
void bench_spin(uintptr_t flags)
{
	volatile int32_t *flag = (volatile int32_t *)flags;
	flag[0] = 1;
	while (!flag[1])
		;
}
