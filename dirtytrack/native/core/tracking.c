// Regions that come and go, and who shares pages with whom.
#include "tracking.h"

#include <errno.h>

#include "../base/memory.h"
#include "../kernel/pagemap.h"
#include "scan.h"

// Calls act on every piece of [start, stop) that no tracked region holds.
static int for_each_unheld(struct dt_session *session, uint64_t start, uint64_t stop,
			   int (*act)(struct dt_backend *, uint64_t, uint64_t))
{
	const struct dt_region *region;
	int result = 0, error;
	for_each_touching(region, &session->regions, start, stop) {
		if (region->flags & DT_LOST)
			continue;
		if (start < region->start && (error = act(&session->backend, start, region->start)) < 0)
			result = error;
		if (start < region->stop)
			start = region->stop;
	}
	if (start < stop && (error = act(&session->backend, start, stop)) < 0)
		result = error;
	return result;
}

static int release(struct dt_session *session, uint64_t start, uint64_t stop)
{
	return for_each_unheld(session, start, stop, session->backend.ops->remove);
}

void dt_free_region(struct dt_session *session, struct dt_region *region)
{
	for_each_cursor(cursor, &session->cursors) dt_free_pending(cursor, region);
	dt_free(region, sizeof *region);
}

int dt_make_region(struct dt_session *session, const struct dt_region *like, struct dt_region **region_ret)
{
	int error = dt_new_region(&session->regions, like, ++session->next_serial, region_ret);
	if (error)
		return error;
	for_each_cursor(cursor, &session->cursors) if (!error) error =
		dt_make_pending(cursor, *region_ret, session->backend.ops->assumes);
	if (error)
		dt_free_region(session, *region_ret);
	return error;
}

// Registers and arms what the region covers. What older regions have pending in shared pages stays theirs.
static int acquire(struct dt_session *session, const struct dt_region *region, struct dt_failure *failure)
{
	const struct dt_backend_ops *ops = session->backend.ops;
	bool huge;
	*failure = (struct dt_failure){"UFFDIO_REGISTER", region->start, region->stop};
	if (region->flags & DT_SPARSE && dt_holds_shared(region->start, region->stop - region->start))
		return -EINVAL; // a written page that the kernel reclaims leaves a hole there, as if nobody had written
				// it
	int error = ops->add(&session->backend, region->start, region->stop, &huge, failure);
	if (error)
		return error;
	if (huge && region->page_shift == session->backend.page_shift)
		return -DT_EHUGETLB;
	if (huge)
		error = for_each_unheld(session, region->start, region->stop, ops->arm_huge);
	else if (ops->arm_first && !(region->flags & DT_SPARSE))
		error = for_each_unheld(session, region->start, region->stop, ops->arm_first);
	if (!error)
		error = dt_harvest(session, region);
	if (error)
		*failure = (struct dt_failure){ops->call, region->start, region->stop};
	return error;
}

static bool is_mixed(const struct dt_session *session, const struct dt_region *like)
{
	const struct dt_region *other;
	for_each_touching(other, &session->regions, like->start, like->stop)
		if (!(other->flags & DT_LOST) && !dt_are_alike(other, like))
			return true;
	return false;
}

static int add(struct dt_session *session, const struct dt_region *like, uint64_t *region_ret,
	       struct dt_failure *failure)
{
	struct dt_region *region;
	dt_find_losses(session, like->start, like->stop); // before anything is registered there anew
	if (is_mixed(session, like))
		return -DT_EMIXED;
	*failure = (struct dt_failure){"mmap", like->start, like->stop};
	int error = dt_make_region(session, like, &region);
	if (error)
		return error;
	dt_claim(&session->rival, region->start, region->stop);
	error = acquire(session, region, failure);
	if (error) {
		release(session, region->start, region->stop);
		dt_free_region(session, region);
		return error;
	}
	dt_insert_region(&session->regions, region);
	*region_ret = region->id;
	return 0;
}

int dt_session_add(struct dt_session *session, uint64_t start, uint64_t stop, uint32_t page_shift, uint32_t flags,
		   uint64_t *region_ret, struct dt_failure *failure)
{
	struct dt_region like = {.start = start, .stop = stop, .page_shift = page_shift, .flags = flags};
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	return dt_leave(&session->lock, add(session, &like, region_ret, failure));
}

static int remove_region(struct dt_session *session, struct dt_region *region)
{
	dt_take_out_region(&session->regions, region);
	int error = release(session, region->start, region->stop);
	dt_free_region(session, region);
	return error;
}

int dt_session_remove(struct dt_session *session, uint64_t id)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(&session->regions, id);
	if (!region)
		return dt_leave(&session->lock, -DT_ECLOSED);
	return dt_leave(&session->lock, remove_region(session, region) ? 1 : 0);
}

int dt_session_release_range(struct dt_session *session, uint64_t start, uint64_t stop)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	release(session, start, stop);
	return dt_leave(&session->lock, 0);
}

int dt_session_holds(struct dt_session *session, uint64_t start, uint64_t stop)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	return dt_leave(&session->lock, session->backend.ops->still_ours(&session->backend, start, stop));
}

// One that can't be used any more has nothing to lose.
static void lose(struct dt_session *session, uint64_t start, uint64_t stop)
{
	struct dt_region *region;
	if (dt_enter(&session->lock) < 0)
		return;
	for_each_touching(region, &session->regions, start, stop)
		dt_lose_region(&session->regions, region);
	dt_leave(&session->lock, 0);
}

static struct dt_session *session_of(struct dt_rival *rival)
{
	return (struct dt_session *)((char *)rival - offsetof(struct dt_session, rival));
}

static void hold(struct dt_rival *rival)
{
	dt_session_hold(session_of(rival));
}

void dt_session_take_from_rivals(struct dt_session *session, uint64_t start, uint64_t stop)
{
	uint64_t number = UINT64_MAX;
	for (struct dt_rival *rival; (rival = dt_next_rival(start, stop, &number, hold));) {
		struct dt_session *other = session_of(rival);
		if (other != session)
			lose(other, start, stop);
		dt_session_drop(other);
	}
}

int dt_session_lose_region(struct dt_session *session, uint64_t id)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(&session->regions, id);
	if (region)
		dt_lose_region(&session->regions, region);
	return dt_leave(&session->lock, region ? 0 : -DT_ECLOSED);
}

int dt_session_is_lost(struct dt_session *session, uint64_t id)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	const struct dt_region *region = dt_find_region(&session->regions, id);
	return dt_leave(&session->lock, region ? !!(region->flags & DT_LOST) : -DT_ECLOSED);
}

int dt_session_mark(struct dt_session *session, uint64_t id, uint64_t start, uint64_t stop)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	const struct dt_region *region = dt_find_region(&session->regions, id);
	if (!region)
		return dt_leave(&session->lock, -DT_ECLOSED);
	if (region->flags & DT_LOST)
		return dt_leave(&session->lock, -DT_ELOST);
	dt_feed(session, region->start + (start << region->page_shift), region->start + (stop << region->page_shift));
	return dt_leave(&session->lock, 0);
}

int dt_session_mark_range(struct dt_session *session, uint64_t start, uint64_t stop)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	dt_feed(session, start, stop);
	return dt_leave(&session->lock, 0);
}

void dt_remove_all(struct dt_session *session)
{
	while (session->regions.count)
		remove_region(session, session->regions.by_address[session->regions.count - 1]);
}
