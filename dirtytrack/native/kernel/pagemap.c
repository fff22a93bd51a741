// PAGEMAP_SCAN, and the questions about mappings: what is there, is all of it there, and are there files.
#include "pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../base/patience.h"

long dt_pagemap_scan(int fd, struct dt_pm_scan_arg *arg)
{
	dt_takes_scan(arg->end - arg->start);
	long count = ioctl(fd, DT_PAGEMAP_SCAN, arg);
	return count < 0 ? -errno : count;
}

int dt_procmap_query(int fd, uint64_t address, int next, struct dt_procmap_query *out, char *name, uint32_t size)
{
	*out = (struct dt_procmap_query){
		.size = sizeof *out,
		.query_flags = next ? DT_PROCMAP_QUERY_COVERING_OR_NEXT_VMA : 0,
		.query_addr = address,
		.vma_name_addr = (uintptr_t)name,
		.vma_name_size = size,
	};
	if (size)
		name[0] = '\0';
	return ioctl(fd, DT_PROCMAP_QUERY, out) < 0 ? -errno : 0;
}

// On Linux MS_ASYNC writes nothing; it fails with ENOMEM when part of the range is unmapped (mm/msync.c).
int dt_mapped(uint64_t start, uint64_t len)
{
	return msync((void *)(uintptr_t)start, len, MS_ASYNC) < 0 ? -errno : 0;
}

// Whether one of the mappings is such; in doubt it is what it is in doubt.
static bool any_mapping(uint64_t start, uint64_t len, bool in_doubt, bool (*is_such)(const struct dt_procmap_query *))
{
	int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	struct dt_procmap_query found = {.vma_end = start};
	bool is_known = maps >= 0, any = false;
	while (is_known && !any && found.vma_end < start + len) {
		is_known = dt_procmap_query(maps, found.vma_end, 0, &found, NULL, 0) >= 0;
		any = is_known && is_such(&found);
	}
	if (maps >= 0)
		close(maps);
	return is_known ? any : in_doubt;
}

static bool is_of_a_file(const struct dt_procmap_query *mapping)
{
	return mapping->inode || mapping->dev_major || mapping->dev_minor;
}

static bool is_shared(const struct dt_procmap_query *mapping)
{
	return mapping->vma_flags & DT_PROCMAP_QUERY_VMA_SHARED;
}

bool dt_may_hold_files(uint64_t start, uint64_t len)
{
	return any_mapping(start, len, true, is_of_a_file);
}

bool dt_holds_shared(uint64_t start, uint64_t len)
{
	return any_mapping(start, len, false, is_shared);
}

int dt_next_populated(int pagemap, uint64_t start, uint64_t stop, struct dt_run *found_ret)
{
	struct dt_page_region found;
	struct dt_pm_scan_arg arg = {
		.size = sizeof arg,
		.start = start,
		.end = stop,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.category_anyof_mask = DT_PAGE_IS_PRESENT | DT_PAGE_IS_SWAPPED,
	};
	int n = (int)dt_pagemap_scan(pagemap, &arg);
	if (n > 0)
		*found_ret = (struct dt_run){found.start, found.end};
	return n;
}
