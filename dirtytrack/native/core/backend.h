// How written pages are found. Declared here and implemented in backends/. Addresses in, addresses out: a backend knows
// nothing of regions and cursors. The caller holds the session's lock in every call.
#pragma once

#include "../kernel/probe.h"
#include "scan_context.h"
#include "span.h"

enum dt_scan_mode {
	DT_LOOK,    // arm nothing
	DT_ARM,     // arm what is found, but for what the backend chooses to leave open
	DT_ARM_ALL, // arm everything
};

struct dt_backend;

// What a kind of backend does. Functions return 0 or more, or -errno; NULL where it says so.
struct dt_backend_ops {
	const char *call; // what a scan does, for messages
	bool assumes;     // scans leave pages open, and list what they found so in the context
	// Makes the state of its own that a session needs, and frees it, also where the former failed. NULL: none.
	int (*open)(struct dt_backend *backend);
	void (*free)(struct dt_backend *backend);
	// Makes [start, stop) trackable. *huge_ret: whether hugetlb memory is in it.
	int (*add)(struct dt_backend *backend, uint64_t start, uint64_t stop, bool *huge_ret,
		   struct dt_failure *failure);
	// Undoes add, also where it failed half-way. Fails, and does nothing, where others have taken a part.
	int (*remove)(struct dt_backend *backend, uint64_t start, uint64_t stop);
	// Arms hugetlb memory that nobody else holds. NULL: there is never any.
	int (*arm_huge)(struct dt_backend *backend, uint64_t start, uint64_t stop);
	// Arms what a scan would arm with too wide an effect, in memory that nobody else holds. NULL: there is nothing.
	int (*arm_first)(struct dt_backend *backend, uint64_t start, uint64_t stop);
	// Disarms [start, stop), which is about to be written as a whole: one call instead of a fault for each page.
	// May fail without harm. NULL: writing costs no faults.
	void (*disarm)(struct dt_backend *backend, uint64_t start, uint64_t stop);
	// Lists the written pages of a span in out, by address; out has room for every other page. The number of runs.
	long (*scan)(struct dt_backend *backend, struct dt_scan_context *context, const struct dt_span *span,
		     enum dt_scan_mode mode, struct dt_run *out);
	// Whether all of [start, stop) is still mapped and still ours.
	bool (*still_ours)(struct dt_backend *backend, uint64_t start, uint64_t stop);
	// The same right after a scan of it, which has looked at some of that already.
	bool (*still_ours_after_scan)(struct dt_backend *backend, uint64_t start, uint64_t stop);
	// Copies what the last arming scan saw there. NULL: a copy of the memory is as good, since every later store is
	// found by the next scan. 0; or -errno, with the address of the first page that can't be read.
	int (*contents)(const struct dt_backend *backend, uint64_t start, uint64_t bytes, uint8_t *to,
			uint64_t *refused_ret);
	// Begins, or ends, a time in which no store goes unseen that leaves the bytes as they were. NULL: none ever
	// does.
	void (*read)(struct dt_backend *backend, bool begins);
};

// The backend of one session, which owns it.
struct dt_backend {
	const struct dt_backend_ops *ops;
	void *state;                  // of its own; NULL: none
	int userfaultfd;              // with WP_ASYNC; owned; -1: none
	int pagemap;                  // of /proc/self/pagemap; owned; -1: none
	enum dt_hole_reporting holes; // of the kernel
	uint64_t armed_by_scan;       // the sizes of hugetlb pages, a bit each, that scans were seen to arm
	bool holds_files;             // files may be behind some of what is, or was, added
	uint32_t page_shift;          // log2 of the bytes of the system's page
};
