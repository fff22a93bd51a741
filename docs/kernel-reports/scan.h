// What both programs need of userfaultfd and PAGEMAP_SCAN, with definitions of their own: they build with old headers.
#pragma once

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { UNPOPULATED = 1 << 13, ASYNC = 1 << 15, REGISTER_WP = 2, USER_MODE_ONLY = 1 };
enum { WP_MATCHING = 1, CHECK_WPASYNC = 2, WRITTEN = 2, SWAPPED = 16, ENTRIES = 512 };

struct range {
	uint64_t start, len;
};

struct region {
	uint64_t start, end, categories;
};

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, anyof, returned;
};

#define SCAN _IOWR('f', 16, struct scan_arg)
#define API _IOWR(0xAA, 0x3F, uint64_t[3])
#define REGISTER _IOWR(0xAA, 0x00, uint64_t[4])
#define WRITEPROTECT _IOWR(0xAA, 0x06, uint64_t[3])

static int pagemap, uffd;
static uint64_t page;

static void need(int holds, const char *what)
{
	if (!holds) {
		perror(what);
		exit(2);
	}
}

static void open_both(void)
{
	uint64_t api[3] = {0xAA, ASYNC | UNPOPULATED, 0};
	page = (uint64_t)sysconf(_SC_PAGESIZE);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
	need(pagemap >= 0 && uffd >= 0 && ioctl(uffd, API, api) == 0, "userfaultfd with UFFD_FEATURE_WP_ASYNC");
}

static char *map_small_pages(uint64_t bytes)
{
	char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(memory != MAP_FAILED, "mmap");
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	return memory;
}

static void add_one_to_each_page(char *memory, uint64_t bytes, uint64_t step)
{
	for (uint64_t at = 0; at < bytes; at += step * page)
		memory[at]++;
}

static void track(char *memory, uint64_t bytes)
{
	uint64_t mode[4] = {(uintptr_t)memory, bytes, REGISTER_WP, 0};
	need(ioctl(uffd, REGISTER, mode) == 0, "UFFDIO_REGISTER");
}

// One call of PAGEMAP_SCAN about pages with all categories of a mask, of which `returned` are told. flags: WP_MATCHING
// protects those that are written. How many regions were found; *start is where to go on.
static long scan_once(uint64_t *start, uint64_t end, uint64_t flags, uint64_t mask, uint64_t returned,
		      struct region *found)
{
	struct scan_arg arg = {.size = sizeof arg, .flags = flags | CHECK_WPASYNC, .start = *start, .end = end};
	arg.vec = (uintptr_t)found;
	arg.vec_len = ENTRIES;
	arg.mask = mask;
	arg.returned = returned;
	long count = ioctl(pagemap, SCAN, &arg);
	need(count >= 0, "PAGEMAP_SCAN");
	*start = count < ENTRIES ? end : arg.walk_end;
	return count;
}

// How many pages of [start, start + bytes) are written.
static uint64_t scan(const char *start, uint64_t bytes, uint64_t flags)
{
	struct region found[ENTRIES];
	uint64_t pages = 0, end = (uintptr_t)start + bytes;
	for (uint64_t at = (uintptr_t)start; at < end;) {
		long count = scan_once(&at, end, flags, WRITTEN, WRITTEN, found);
		for (long i = 0; i < count; i++)
			pages += (found[i].end - found[i].start) / page;
	}
	return pages;
}

static double microseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}
