// PAGEMAP_SCAN, the questions about mappings (what is there, and is all of it there), and a careful read. Every
// function returns 0 (or what it says) or -errno, keeps no state, takes no lock and knows no policy; from any thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

// PAGEMAP_SCAN as it is, on a descriptor of /proc/PID/pagemap: the number of entries of arg->vec that it filled.
long dt_pagemap_scan(int fd, struct dt_pm_scan_arg *arg);

// The mapping that holds address or, with next != 0, the first one that ends above it, on a descriptor of
// /proc/PID/maps. name: room for size bytes of the mapping's name, which is always terminated; NULL if size is 0.
// -ENOENT: there is none. -ENOTTY: before Linux 6.11.
int dt_procmap_query(int fd, uint64_t address, int next, struct dt_procmap_query *out, char *name, uint32_t size);

// 0 when every page of [start, start + len) is mapped, -ENOMEM when one is not. Reads the mappings only.
int dt_mapped(uint64_t start, uint64_t len);

// Whether a file may be behind memory of [start, start + len), as one is behind shared memory. Any doubt is a yes:
// before Linux 6.11, and where /proc can't be read.
bool dt_may_hold_files(uint64_t start, uint64_t len);

// Reads own memory that may be unreadable, which would be a signal otherwise: the bytes read, up to the first page that
// can't be. -errno where a filter forbids process_vm_readv(2), on which it rests.
long dt_read_memory(uint64_t start, void *to, size_t bytes);
