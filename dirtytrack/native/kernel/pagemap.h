// PAGEMAP_SCAN, and the questions about mappings: what is there, and is all of it there. Every function returns 0 (or
// what it says) or -errno, keeps no state, takes no lock and knows no policy; from any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/runs.h"
#include "abi.h"

#pragma GCC visibility push(hidden)

// PAGEMAP_SCAN as it is, on a descriptor of /proc/PID/pagemap: the number of entries of arg->vec that it filled.
long dt_pagemap_scan(int fd, struct dt_pm_scan_arg *arg);

// The mapping that holds address or, with next != 0, the first one that ends above it, on a descriptor of
// /proc/PID/maps. name: room for size bytes of the mapping's name, which is always terminated; NULL if size is 0.
// -ENOENT: there is none. -ENOTTY: before Linux 6.11.
int dt_procmap_query(int fd, uint64_t address, int next, struct dt_procmap_query *out, char *name, uint32_t size);

// 0 when every page of [start, start + len) is mapped, -ENOMEM when one is not. Reads the mappings only.
int dt_mapped(uint64_t start, uint64_t len);

// The first addresses of [start, stop) that are populated: in memory, swapped out, or a marker of the kernel's. Touches
// none. 1; 0: there are none; -errno. pagemap: a descriptor of /proc/PID/pagemap.
int dt_next_populated(int pagemap, uint64_t start, uint64_t stop, struct dt_run *found_ret);

// Whether a file may be behind memory of [start, start + len), as one is behind shared memory. Any doubt is a yes:
// before Linux 6.11, and where /proc can't be read.
bool dt_may_hold_files(uint64_t start, uint64_t len);
// Whether some of it is known to be shared memory. Any doubt is a no.
bool dt_holds_shared(uint64_t start, uint64_t len);

#pragma GCC visibility pop
