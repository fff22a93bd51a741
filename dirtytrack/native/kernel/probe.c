// How this kernel reports holes.
#include "probe.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../base/patience.h"
#include "pagemap.h"
#include "userfaultfd.h"

static long written(int pagemap, uint64_t start, uint64_t stop, uint64_t returned, struct dt_page_region *found)
{
	struct dt_pm_scan_arg arg = {
		.size = sizeof arg,
		.start = start,
		.end = stop,
		.vec = (uintptr_t)found,
		.vec_len = 2,
		.category_mask = DT_PAGE_IS_WRITTEN,
		.return_mask = returned,
	};
	return dt_pagemap_scan(pagemap, &arg);
}

// Of two pages without more, the first has an entry in the page table; the next table is not there at all.
static int hole_reporting(int pagemap, uint64_t start, uint64_t page, uint64_t table)
{
	struct dt_page_region found[2];
	long n = written(pagemap, start, start + 2 * page, DT_PAGE_IS_WRITTEN | DT_PAGE_IS_PRESENT, found);
	if (n < 0)
		return (int)n;
	uint64_t entries = 0;
	for (long i = 0; i < n; i++)
		entries += (found[i].end - found[i].start) / page;
	if (!entries)
		return -EINVAL; // what was just written to is not: it is the pagemap of another process
	n = written(pagemap, start + table, start + 2 * table, DT_PAGE_IS_WRITTEN, found);
	if (n < 0)
		return (int)n;
	bool reported = entries == 2 && n == 1 && found[0].start == start + table && found[0].end == start + 2 * table;
	return reported ? DT_HOLES_REPORTED : DT_HOLES_UNREPORTED;
}

int dt_probe_hole_reporting(int userfaultfd, int pagemap)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), table = page / 8 * page, ioctls;
	dt_takes_long();
	char *memory =
		mmap(NULL, 3 * table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	madvise(memory, 3 * table, MADV_NOHUGEPAGE); // one touch must not populate more than one page
	uint64_t start = ((uint64_t)memory + table - 1) / table * table;
	*(volatile char *)start = 1;
	int result = dt_uffd_register(userfaultfd, (uint64_t)memory, 3 * table, DT_REGISTER_WP, &ioctls);
	if (!result) {
		result = hole_reporting(pagemap, start, page, table);
		dt_uffd_unregister(userfaultfd, (uint64_t)memory, 3 * table);
	}
	munmap(memory, 3 * table);
	return result;
}
