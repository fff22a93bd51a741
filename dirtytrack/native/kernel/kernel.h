// Floor 0: the system calls, one thin function each. Every function returns 0 (or the count it documents) or
// -errno, keeps no state, takes no lock, and knows no policy.
#pragma once

#include <stddef.h>

#include "abi.h"

// userfaultfd(2) with the given flags (O_* and DT_UFFD_USER_MODE_ONLY): the descriptor or -errno.
int dt_uffd_syscall(int flags);
// The same through /dev/userfaultfd, for which only the file's permissions count.
int dt_uffd_device(int flags);
// The handshake, once per descriptor. *features: asked for; on return, all that the kernel supports.
int dt_uffd_api(int fd, uint64_t *features);
// Write-protect mode registration of [start, start+len). *ioctls: what the range supports.
int dt_uffd_register(int fd, uint64_t start, uint64_t len, uint64_t *ioctls);
int dt_uffd_unregister(int fd, uint64_t start, uint64_t len);
// Arm (protect != 0) or open (protect == 0) every page of [start, start+len).
int dt_uffd_writeprotect(int fd, uint64_t start, uint64_t len, int protect);

// PAGEMAP_SCAN as it is: the number of entries filled, or -errno.
long dt_pagemap_scan(int fd, struct dt_pm_scan_arg *arg);

// The mapping that holds address or, with next != 0, the first one that ends above it. -ENOENT where there is
// none, -ENOTTY before Linux 6.11. name: size bytes for the mapping's name; it is always terminated.
int dt_procmap_query(int fd, uint64_t address, int next, struct dt_procmap_query *out, char *name, uint32_t size);

// 0 when every page of [start, start+len) is mapped, -ENOMEM when one is not. Reads the mappings only.
int dt_mapped(uint64_t start, uint64_t len);

// Reads own memory that may be unreadable, which would be a signal otherwise: the bytes read, up to the first page that
// can't be; -errno where a filter forbids process_vm_readv(2), on which it rests.
long dt_read_memory(uint64_t start, void *to, size_t bytes);

// 1 if this kernel overlooks memory without page table entries, hence also what was dropped (MADV_DONTNEED), 0 if it
// does not, by trying it on memory of its own. (pagemap_scan_pmd_entry and pagemap_scan_pte_hole in
// fs/proc/task_mmu.c.)
int dt_blind_to_holes(int userfaultfd, int pagemap);

int dt_close(int fd);
