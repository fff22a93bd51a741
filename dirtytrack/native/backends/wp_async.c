// Asynchronous write-protection, and the kernels that do not report holes, or do not arm huge pages as they should.
#include "wp_async.h"

#include <errno.h>

#include "../core/lifetime.h"
#include "../kernel/pagemap.h"
#include "../kernel/userfaultfd.h"

static int refused(struct dt_failure *failure, const char *call, uint64_t start, uint64_t stop, int error)
{
	*failure = (struct dt_failure){call, start, stop};
	return error;
}

static int add(struct dt_backend *backend, uint64_t start, uint64_t stop, bool *huge_ret, struct dt_failure *failure)
{
	uint64_t ioctls;
	int error = dt_mapped(start, stop - start);
	if (error)
		return refused(failure, "msync", start, stop, error);
	if (!backend->holds_files)
		backend->holds_files = dt_may_hold_files(start, stop - start);
	error = dt_uffd_register(backend->userfaultfd, start, stop - start, DT_REGISTER_WP, &ioctls);
	if (error)
		return refused(failure, "UFFDIO_REGISTER", start, stop, error);
	// A range with hugetlb in it supports no UFFDIO_ZEROPAGE (userfaultfd_register() in the kernel).
	*huge_ret = !(ioctls & DT_UFFDIO_HAS_ZEROPAGE);
	return 0;
}

// Before Linux 6.17 UFFDIO_UNREGISTER also takes ranges away from other userfaultfds. Registering refuses those with
// EBUSY, so it comes first. It does nothing to what is ours; any other refusal comes after that check.
static int remove_range(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	uint64_t ioctls;
	int error = dt_uffd_register(backend->userfaultfd, start, stop - start, DT_REGISTER_WP, &ioctls);
	return error == -EBUSY ? error : dt_uffd_unregister(backend->userfaultfd, start, stop - start);
}

// What is not registered any more is EPERM, as it is to a scan.
static int arm_huge(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	int error = dt_uffd_writeprotect(backend->userfaultfd, start, stop - start, 1);
	return error == -ENOENT ? -EPERM : error;
}

// Shared memory is a file's to the kernel, which unmaps a huge page of a file whole at the first store to it once a
// scan has armed it, and when it is dropped or paged out: all of it counts as written then. UFFDIO_WRITEPROTECT maps it
// by small pages instead, each with a mark of its own that outlasts all of that.
static int arm_huge_files(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	const uint64_t huge = 1ULL << (2 * backend->page_shift - 3); // what a page table maps
	for (uint64_t at = (start + huge - 1) & ~(huge - 1); backend->holds_files && at + huge <= stop; at += huge) {
		struct dt_page_region found;
		struct dt_pm_scan_arg arg = {
			.size = sizeof arg,
			.start = at,
			.end = at + (1ULL << backend->page_shift), // its first small page tells for all of them
			.vec = (uintptr_t)&found,
			.vec_len = 1,
			.category_mask = DT_PAGE_IS_HUGE | DT_PAGE_IS_FILE,
			.return_mask = DT_PAGE_IS_HUGE,
		};
		long n = dt_pagemap_scan(backend->pagemap, &arg);
		int error = n > 0 ? arm_huge(backend, at, at + huge) : (int)n;
		if (error)
			return error;
	}
	return 0;
}

static void disarm(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	dt_uffd_writeprotect(backend->userfaultfd, start, stop - start, 0);
}

static long scan_pass(const struct dt_backend *backend, const struct dt_scan_context *context,
		      struct dt_pm_scan_arg *arg, struct dt_run *out)
{
	size_t n = 0;
	for (;;) {
		long got = dt_pagemap_scan(backend->pagemap, arg);
		if (got < 0)
			return got;
		for (const struct dt_page_region *at = context->vec; at < context->vec + got; at++)
			n = dt_runs_append(out, n, (struct dt_run){at->start, at->end});
		if ((uint64_t)got < arg->vec_len || arg->walk_end >= arg->end)
			return (long)n;
		if (arg->walk_end <= arg->start)
			return -EIO; // no kernel does this; a loop that can't end would be worse
		arg->start = arg->walk_end;
	}
}

// A kernel that does not report holes finds nothing where a page table, or an entry of one, is gone: memory dropped
// since it was armed (armed but never populated memory has markers, which count as swapped). The second scan matches
// exactly those and arms them. Not for hugetlb, on which such a scan hangs before 6.12.97.
static long scan_with_holes(const struct dt_backend *backend, struct dt_scan_context *context,
			    struct dt_pm_scan_arg *arg, struct dt_run *out)
{
	struct dt_pm_scan_arg holes = *arg;
	uint64_t pages = (arg->end - arg->start) >> backend->page_shift;
	int error = dt_run_buffer_fit(&context->written, pages);
	if (!error)
		error = dt_run_buffer_fit(&context->dropped, pages);
	if (error)
		return error;
	long written = scan_pass(backend, context, arg, context->written.runs);
	if (written < 0)
		return written;
	holes.category_mask = holes.category_inverted = DT_PAGE_IS_PRESENT | DT_PAGE_IS_SWAPPED;
	holes.category_anyof_mask = holes.return_mask = 0;
	long dropped = scan_pass(backend, context, &holes, context->dropped.runs);
	if (dropped < 0)
		return dropped;
	return (long)dt_runs_combine(DT_OR, context->written.runs, (size_t)written, context->dropped.runs,
				     (size_t)dropped, out);
}

// Kernels before mid-2026 neither report nor arm hugetlb pages of another size than a page table maps, if a scan is to
// arm. A look finds them on every kernel, and UFFDIO_WRITEPROTECT arms them: a store in between is to a page that is
// reported. Whether a scan would do, the first page found tells, once for each size.
static long scan_hugetlb(struct dt_backend *backend, const struct dt_scan_context *context, uint32_t page_shift,
			 struct dt_pm_scan_arg *arg, struct dt_run *out)
{
	const uint64_t size = 1ULL << page_shift;
	struct dt_pm_scan_arg trial = *arg;
	if (!(arg->flags & DT_PM_SCAN_WP_MATCHING) || backend->armed_by_scan & size)
		return scan_pass(backend, context, arg, out);
	arg->flags &= ~DT_PM_SCAN_WP_MATCHING;
	long n = scan_pass(backend, context, arg, out);
	if (n > 0 && backend->holes != DT_HOLES_UNREPORTED_FOR_TESTS) {
		trial.start = out->start;
		trial.end = out->start + size;
		if (dt_pagemap_scan(backend->pagemap, &trial) == 1)
			backend->armed_by_scan |= size;
	}
	int error = 0;
	for (long i = 0; i < n && !error; i++)
		error = arm_huge(backend, out[i].start, out[i].stop);
	return error ? error : n;
}

static long scan(struct dt_backend *backend, struct dt_scan_context *context, const struct dt_span *span,
		 enum dt_scan_mode mode, struct dt_run *out)
{
	bool find_holes = backend->holes != DT_HOLES_REPORTED && !span->sparse;
	uint64_t pages = (span->stop - span->start) >> backend->page_shift;
	struct dt_pm_scan_arg arg = {
		.size = sizeof arg,
		.flags = DT_PM_SCAN_CHECK_WPASYNC | (mode != DT_LOOK ? DT_PM_SCAN_WP_MATCHING : 0),
		.start = span->start,
		.end = span->stop,
		.vec = (uintptr_t)context->vec,
		// The kernel allocates a buffer of this many for the call; more than 256 cost half a microsecond, and
		// more than 128 a bit. One more than can be filled: what is full is scanned on.
		.vec_len = pages / 2 + 2 <= DT_VEC / 2 ? pages / 2 + 2 : DT_VEC,
		.category_mask = DT_PAGE_IS_WRITTEN,
		.return_mask = DT_PAGE_IS_WRITTEN,
	};
	if (span->page_shift != backend->page_shift)
		return scan_hugetlb(backend, context, span->page_shift, &arg, out);
	if (span->sparse || backend->holes == DT_HOLES_UNREPORTED_FOR_TESTS)
		arg.category_anyof_mask = DT_PAGE_IS_PRESENT | DT_PAGE_IS_SWAPPED;
	long n = find_holes ? scan_with_holes(backend, context, &arg, out) : scan_pass(backend, context, &arg, out);
	int error = 0; // a store meanwhile is to a page that is reported
	for (long i = 0; backend->holds_files && mode != DT_LOOK && i < n && !error; i++)
		error = arm_huge_files(backend, out[i].start, out[i].stop);
	return error ? error : n;
}

// The scan has just found every mapping in the range registered with some userfaultfd. Registering what is ours
// already changes nothing; EBUSY says that it is another's. A single page that is unmapped is EINVAL here too.
static bool still_ours_after_scan(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	uint64_t ioctls;
	int error = dt_uffd_register(backend->userfaultfd, start, stop - start, DT_REGISTER_WP, &ioctls);
	if (error == -EBUSY || error == -EINVAL) // anything else says nothing about the range
		return false;
	return (stop - start) >> backend->page_shift == 1 || dt_mapped(start, stop - start) == 0;
}

static bool still_ours(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	struct dt_page_region none;
	struct dt_pm_scan_arg arg = {
		.size = sizeof arg,
		.flags = DT_PM_SCAN_CHECK_WPASYNC,
		.start = start,
		.end = stop,
		.vec = (uintptr_t)&none,
		.vec_len = 1,
		// Asks for pages outside of tracked mappings: there are none, so no page ends the walk early.
		.category_mask = DT_PAGE_IS_WPALLOWED,
		.category_inverted = DT_PAGE_IS_WPALLOWED,
	};
	// EPERM is an unregistered mapping; any other refusal (ENOMEM) says nothing about the range.
	return dt_mapped(start, stop - start) == 0 && dt_pagemap_scan(backend->pagemap, &arg) != -EPERM &&
	       still_ours_after_scan(backend, start, stop);
}

const struct dt_backend_ops dt_backend_wp_async = {
	.call = "PAGEMAP_SCAN",
	.add = add,
	.remove = remove_range,
	.arm_huge = arm_huge,
	.arm_first = arm_huge_files,
	.disarm = disarm,
	.scan = scan,
	.still_ours = still_ours,
	.still_ours_after_scan = still_ours_after_scan,
};

int dt_session_open_wp_async(int userfaultfd, int pagemap, int holes, struct dt_session **session_ret,
			     uint64_t *cursor_ret)
{
	const struct dt_backend backend = {
		.ops = &dt_backend_wp_async,
		.userfaultfd = userfaultfd,
		.pagemap = pagemap,
		.holes = (enum dt_hole_reporting)holes,
	};
	return dt_open_session(&backend, session_ret, cursor_ret);
}
