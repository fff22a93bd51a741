// What only a try tells of this kernel.
#pragma once

#pragma GCC visibility push(hidden)

// How PAGEMAP_SCAN reports a hole as written: armed memory without a page table entry, since its pages were dropped
// (MADV_DONTNEED) or their page table is gone.
enum dt_hole_reporting {
	DT_HOLES_REPORTED = 0,
	DT_HOLES_UNREPORTED = 1, // a second scan has to find them
	// The kernel reports them, and the session's first scan is told not to: this tries the path of the second one,
	// and that of hugetlb pages which a scan does not arm.
	DT_HOLES_UNREPORTED_FOR_TESTS = 2,
};

// Tries it, on memory of its own: DT_HOLES_REPORTED, DT_HOLES_UNREPORTED, or -errno. userfaultfd: after its handshake,
// with UFFD_FEATURE_WP_ASYNC. pagemap: of this process; -EINVAL: of another one. (pagemap_scan_pmd_entry and
// pagemap_scan_pte_hole in fs/proc/task_mmu.c.)
int dt_probe_hole_reporting(int userfaultfd, int pagemap);

#pragma GCC visibility pop
