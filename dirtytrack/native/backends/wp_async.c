// The backend of userfaultfd's asynchronous write-protection and PAGEMAP_SCAN.
#include <errno.h>

#include "../core/internal.h"

static int refused(struct dt_failure *failure, const char *call, uint64_t start, uint64_t stop, int error)
{
	*failure = (struct dt_failure){call, start, stop};
	return error;
}

static int add(struct dt_session *session, uint64_t start, uint64_t stop, bool *huge_ret, struct dt_failure *failure)
{
	uint64_t ioctls;
	int error = dt_mapped(start, stop - start);
	if (error)
		return refused(failure, "msync", start, stop, error);
	error = dt_uffd_register(session->userfaultfd, start, stop - start, &ioctls);
	if (error)
		return refused(failure, "UFFDIO_REGISTER", start, stop, error);
	// A range with hugetlb in it supports no UFFDIO_ZEROPAGE (userfaultfd_register() in the kernel).
	*huge_ret = !(ioctls & DT_UFFDIO_HAS_ZEROPAGE);
	return 0;
}

// Before Linux 6.17 UFFDIO_UNREGISTER also takes ranges away from other userfaultfds. Registering refuses those with
// EBUSY, so it comes first. It does nothing to what is ours; any other refusal comes after that check.
static int remove_range(struct dt_session *session, uint64_t start, uint64_t stop)
{
	uint64_t ioctls;
	int error = dt_uffd_register(session->userfaultfd, start, stop - start, &ioctls);
	return error == -EBUSY ? error : dt_uffd_unregister(session->userfaultfd, start, stop - start);
}

static int arm_huge(struct dt_session *session, uint64_t start, uint64_t stop)
{
	return dt_uffd_writeprotect(session->userfaultfd, start, stop - start, 1);
}

static long scan_pass(struct dt_session *session, struct dt_pm_scan_arg *arg, struct dt_run *out)
{
	size_t n = 0;
	for (;;) {
		long got = dt_pagemap_scan(session->pagemap, arg);
		if (got < 0)
			return got;
		for (const struct dt_page_region *at = session->vec; at < session->vec + got; at++) {
			if (n == 0 || out[n - 1].stop < at->start)
				out[n++] = (struct dt_run){at->start, at->end};
			else if (out[n - 1].stop < at->end)
				// Never backwards: out has room for every other page, no more.
				out[n - 1].stop = at->end;
		}
		if ((uint64_t)got < arg->vec_len || arg->walk_end >= arg->end)
			return (long)n;
		if (arg->walk_end <= arg->start)
			return -EIO; // no kernel does this; a loop that can't end would be worse
		arg->start = arg->walk_end;
	}
}

// A kernel that is blind to holes reports nothing where a page table, or an entry of one, is gone: memory dropped
// since it was armed (armed but never populated memory has markers, which count as swapped). The second scan matches
// exactly those and arms them. Not for hugetlb, on which such a scan hangs before 6.12.97.
static long scan_with_holes(struct dt_session *session, struct dt_pm_scan_arg *arg, struct dt_run *out)
{
	struct dt_pm_scan_arg holes = *arg;
	uint64_t most = ((arg->end - arg->start) >> session->page_shift) / 2 + 1;
	for (int i = 0; i < 2; i++) {
		int error = dt_make_room(&session->spare[i], &session->spare_room[i], most, sizeof(struct dt_run));
		if (error)
			return error;
	}
	long written = scan_pass(session, arg, session->spare[0]);
	if (written < 0)
		return written;
	holes.category_mask = holes.category_inverted = DT_PAGE_IS_PRESENT | DT_PAGE_IS_SWAPPED;
	holes.category_anyof_mask = holes.return_mask = 0;
	long dropped = scan_pass(session, &holes, session->spare[1]);
	if (dropped < 0)
		return dropped;
	return (long)dt_runs_combine(DT_OR, session->spare[0], written, session->spare[1], dropped, out);
}

static long scan(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
		 enum dt_scan_mode mode, struct dt_run *out)
{
	bool sparse = kind->flags & DT_SPARSE;
	bool find_holes = session->blind_to_holes && !sparse && kind->page_shift == session->page_shift;
	uint64_t pages = (stop - start) >> session->page_shift;
	struct dt_pm_scan_arg arg = {
		.size = sizeof arg,
		.flags = DT_PM_SCAN_CHECK_WPASYNC | (mode != DT_LOOK ? DT_PM_SCAN_WP_MATCHING : 0),
		.start = start,
		.end = stop,
		.vec = (uintptr_t)session->vec,
		// The kernel allocates a buffer of this many for the call; more than 256 cost half a microsecond.
		.vec_len = pages < DT_VEC / 2 ? DT_VEC / 2 : DT_VEC,
		.category_mask = DT_PAGE_IS_WRITTEN,
		.return_mask = DT_PAGE_IS_WRITTEN,
	};
	if (sparse || (find_holes && session->blind_to_holes == 2))
		arg.category_anyof_mask = DT_PAGE_IS_PRESENT | DT_PAGE_IS_SWAPPED;
	return find_holes ? scan_with_holes(session, &arg, out) : scan_pass(session, &arg, out);
}

// The scan has just found every mapping in the range registered with some userfaultfd. Registering what is ours
// already changes nothing; EBUSY says that it is another's. A single page that is unmapped is EINVAL here too.
static bool verify(struct dt_session *session, uint64_t start, uint64_t stop)
{
	uint64_t ioctls;
	int error = dt_uffd_register(session->userfaultfd, start, stop - start, &ioctls);
	if (error == -EBUSY || error == -EINVAL) // anything else says nothing about the range
		return false;
	return (stop - start) >> session->page_shift == 1 || dt_mapped(start, stop - start) == 0;
}

static bool check(struct dt_session *session, uint64_t start, uint64_t stop)
{
	struct dt_pm_scan_arg arg = {
		.size = sizeof arg,
		.flags = DT_PM_SCAN_CHECK_WPASYNC,
		.start = start,
		.end = stop,
		.vec = (uintptr_t)session->vec,
		.vec_len = 1,
		// Asks for pages outside of tracked mappings: there are none, so no page ends the walk early.
		.category_mask = 1,
		.category_inverted = 1,
	};
	// EPERM is an unregistered mapping; any other refusal (ENOMEM) says nothing about the range.
	return dt_mapped(start, stop - start) == 0 && dt_pagemap_scan(session->pagemap, &arg) != -EPERM &&
	       verify(session, start, stop);
}

const struct dt_backend dt_backend_wp_async = {
	.call = "PAGEMAP_SCAN",
	.add = add,
	.remove = remove_range,
	.arm_huge = arm_huge,
	.scan = scan,
	.verify = verify,
	.check = check,
};
