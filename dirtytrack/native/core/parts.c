// Regions divided, repaired and recovered.
#include "parts.h"

#include <errno.h>

#include "../kernel/pagemap.h"
#include "scan.h"
#include "tracking.h"

// Gives a part, which is in no table yet, what the cursors have pending from its pages of the whole.
static void inherit(struct dt_session *session, const struct dt_region *part, const struct dt_region *whole)
{
	uint64_t first = (part->start - whole->start) >> whole->page_shift, pages = dt_region_pages(part);
	for_each_cursor(cursor, &session->cursors)
	{
		dt_bits_join(dt_pending(cursor, part), dt_pending(cursor, whole), first, pages);
		if (session->backend.ops->assumes)
			dt_bits_join(dt_assumed(cursor, part), dt_assumed(cursor, whole), first, pages);
	}
}

static int make_part(struct dt_session *session, const struct dt_region *whole, uint64_t start, uint64_t stop,
		     struct dt_region **part_ret)
{
	struct dt_region like = {.start = start, .stop = stop, .page_shift = whole->page_shift};
	like.flags = whole->flags & ~(uint32_t)DT_LOST;
	int error = dt_make_region(session, &like, part_ret);
	if (!error)
		inherit(session, *part_ret, whole);
	return error;
}

static void insert(struct dt_session *session, struct dt_region *part, bool is_lost)
{
	dt_insert_region(&session->regions, part);
	if (is_lost)
		dt_lose_region(&session->regions, part);
}

static int divide(struct dt_session *session, struct dt_region *whole, uint64_t at, uint64_t parts_ret[2])
{
	struct dt_region *low, *high;
	bool is_lost = whole->flags & DT_LOST;
	int error = make_part(session, whole, whole->start, at, &low);
	if (error)
		return error;
	insert(session, low, is_lost);
	error = make_part(session, whole, at, whole->stop, &high);
	if (error) {
		dt_take_out_region(&session->regions, low);
		dt_free_region(session, low);
		return error;
	}
	insert(session, high, is_lost);
	dt_take_out_region(&session->regions, whole);
	dt_free_region(session, whole);
	parts_ret[0] = low->id;
	parts_ret[1] = high->id;
	return 0;
}

int dt_session_divide(struct dt_session *session, uint64_t id, uint64_t at, uint64_t parts_ret[2])
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	struct dt_region *whole = dt_find_region(&session->regions, id);
	return dt_leave(&session->lock, whole ? divide(session, whole, at, parts_ret) : -DT_ECLOSED);
}

static void recover(struct dt_session *session, uint64_t start, uint64_t stop)
{
	struct dt_region *region;
	for_each_touching(region, &session->regions, start, stop) {
		const struct dt_run whole = {region->start, region->stop};
		if (!(region->flags & DT_LOST) ||
		    !session->backend.ops->still_ours(&session->backend, whole.start, whole.stop))
			continue;
		dt_recover_region(&session->regions, region);
		dt_feed_region(&session->cursors, region, &whole, 1, NULL);
	}
}

int dt_session_recover(struct dt_session *session, uint64_t start, uint64_t stop)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	recover(session, start, stop);
	return dt_leave(&session->lock, 0);
}

// What is registered here already is let go first: a backend may keep something beside its addresses.
static int renew(struct dt_session *session, const struct dt_region *like, uint64_t start, uint64_t stop,
		 struct dt_failure *failure)
{
	struct dt_backend *backend = &session->backend;
	bool huge;
	backend->ops->remove(backend, start, stop);
	bool is_refused = like->flags & DT_SPARSE && dt_holds_shared(start, stop - start);
	int error = is_refused ? -EINVAL : backend->ops->add(backend, start, stop, &huge, failure);
	if (!error && huge != (like->page_shift != backend->page_shift))
		error = -DT_EHUGETLB;
	else if (!error && huge)
		error = backend->ops->arm_huge(backend, start, stop);
	else if (!error && backend->ops->arm_first && !(like->flags & DT_SPARSE))
		error = backend->ops->arm_first(backend, start, stop);
	if (error)
		backend->ops->remove(backend, start, stop);
	return error;
}

static int replace(struct dt_session *session, const struct dt_region *like, uint64_t start, uint64_t stop,
		   struct dt_failure *failure)
{
	struct dt_region *region;
	dt_claim(&session->rival, start, stop);
	int error = renew(session, like, start, stop, failure);
	if (error) {
		for_each_touching(region, &session->regions, start, stop)
			dt_lose_region(&session->regions, region);
		return error;
	}
	dt_feed(session, start, stop); // what is not armed yet, the next scan arms
	recover(session, start, stop);
	return 0;
}

int dt_session_replace(struct dt_session *session, uint64_t id, uint64_t start, uint64_t stop,
		       struct dt_failure *failure)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	const struct dt_region *region = dt_find_region(&session->regions, id);
	return dt_leave(&session->lock, region ? replace(session, region, start, stop, failure) : -DT_ECLOSED);
}
