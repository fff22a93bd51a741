// The kernel's userfaultfd and PAGEMAP_SCAN interfaces, as far as dirtytrack uses them. Our own definitions: the
// build must not depend on how new the installed kernel headers are.
// Sources: include/uapi/linux/userfaultfd.h and include/uapi/linux/fs.h of Linux 6.7 to 7.3.
#pragma once

#include <stdint.h>
#include <sys/ioctl.h> // _IO and the like, as the kernel has them

// userfaultfd(2) flag: refuse faults raised in the kernel, which lets any user open one. Asynchronous
// write-protection never delivers a fault to anybody, so nothing is lost by it.
#define DT_UFFD_USER_MODE_ONLY 1

#define DT_USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) // on /dev/userfaultfd, flags by value

#define DT_UFFD_API 0xAAULL
#define DT_UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1ULL << 12)
#define DT_UFFD_FEATURE_WP_UNPOPULATED (1ULL << 13)
#define DT_UFFD_FEATURE_WP_ASYNC (1ULL << 15)

struct dt_uffdio_api {
	uint64_t api;
	uint64_t features;
	uint64_t ioctls;
};

struct dt_uffdio_range {
	uint64_t start;
	uint64_t len;
};

struct dt_uffdio_register {
	struct dt_uffdio_range range;
	uint64_t mode;
	uint64_t ioctls; // out: the UFFDIO_* calls that the whole range supports
};

struct dt_uffdio_protect { // uffdio_writeprotect, and since Linux 7.3 uffdio_rwprotect
	struct dt_uffdio_range range;
	uint64_t mode;
};

struct dt_uffdio_set_mode { // since Linux 7.3
	uint64_t enable;    // features
	uint64_t disable;
};

#define DT_UFFDIO_PROTECT (1ULL << 0)      // the mode of both kinds of protection; without it they lift it
#define DT_UFFDIO_HAS_ZEROPAGE (1ULL << 4) // in dt_uffdio_register.ioctls; absent when hugetlb is in the range

#define DT_UFFDIO_API _IOWR(0xAA, 0x3F, struct dt_uffdio_api)
#define DT_UFFDIO_REGISTER _IOWR(0xAA, 0x00, struct dt_uffdio_register)
#define DT_UFFDIO_UNREGISTER _IOR(0xAA, 0x01, struct dt_uffdio_range)
#define DT_UFFDIO_WRITEPROTECT _IOWR(0xAA, 0x06, struct dt_uffdio_protect)
#define DT_UFFDIO_RWPROTECT _IOWR(0xAA, 0x09, struct dt_uffdio_protect)
#define DT_UFFDIO_SET_MODE _IOW(0xAA, 0x0A, struct dt_uffdio_set_mode)

#define DT_PAGE_IS_WPALLOWED (1ULL << 0) // in a mapping that is registered for asynchronous write-protection
#define DT_PAGE_IS_WRITTEN (1ULL << 1)
#define DT_PAGE_IS_FILE (1ULL << 2)
#define DT_PAGE_IS_PRESENT (1ULL << 3)
#define DT_PAGE_IS_SWAPPED (1ULL << 4)
#define DT_PAGE_IS_PFNZERO (1ULL << 5)
#define DT_PAGE_IS_HUGE (1ULL << 6)
#define DT_PAGE_IS_GUARD (1ULL << 8) // since Linux 6.16

#define DT_PM_SCAN_WP_MATCHING (1ULL << 0)
#define DT_PM_SCAN_CHECK_WPASYNC (1ULL << 1)

struct dt_page_region {
	uint64_t start; // address, inclusive
	uint64_t end;   // address, exclusive
	uint64_t categories;
};

struct dt_pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end; // out
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define DT_PAGEMAP_SCAN _IOWR('f', 16, struct dt_pm_scan_arg)

struct dt_procmap_query {
	uint64_t size;
	uint64_t query_flags;
	uint64_t query_addr;
	uint64_t vma_start; // out, from here on
	uint64_t vma_end;
	uint64_t vma_flags;
	uint64_t vma_page_size;
	uint64_t vma_offset;
	uint64_t inode;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint32_t vma_name_size;
	uint32_t build_id_size;
	uint64_t vma_name_addr;
	uint64_t build_id_addr;
};

// dt_procmap_query.vma_flags
#define DT_PROCMAP_QUERY_VMA_READABLE (1ULL << 0)
#define DT_PROCMAP_QUERY_VMA_WRITABLE (1ULL << 1)
#define DT_PROCMAP_QUERY_VMA_SHARED (1ULL << 3)
#define DT_PROCMAP_QUERY_COVERING_OR_NEXT_VMA (1ULL << 4) // query_flags: else the mapping has to hold the address

#define DT_PROCMAP_QUERY _IOWR('f', 17, struct dt_procmap_query) // on /proc/PID/maps, since Linux 6.11

#define DT_MADV_COLLAPSE 25 // since Linux 6.1
