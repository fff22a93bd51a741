// The interface for native runtimes, which have no Python to open descriptors and to know the kernel: a session with a
// card table.
#include "../include/dirtytrack.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "../backends/keep_huge.h"
#include "../backends/opening.h"
#include "../base/memory.h"
#include "../core/collect.h"
#include "../core/lifetime.h"
#include "../core/tracking.h"
#include "cards.h"

enum { FIRST_WAIT = 8, MOST_WAIT = 4096 }; // looks

struct dt_tracker {
	struct dt_session *session;
	struct dt_cards *cards;
};

static void close_tracker(struct dt_tracker *tracker)
{
	dt_cards_close(tracker->cards);
	if (tracker->session)
		dt_session_release(tracker->session);
	dt_free(tracker, sizeof *tracker);
}

static int keep_huge_pages(struct dt_session *session)
{
	int error = dt_session_keep_huge_pages(session, FIRST_WAIT, MOST_WAIT);
	return error == -ENOMEM || error == -EAGAIN ? error : 0;
}

static int open_tracker(size_t card_size, unsigned flags, struct dt_tracker **tracker_ret)
{
	struct dt_tracker *tracker = dt_alloc(sizeof *tracker);
	if (!tracker)
		return -ENOMEM;
	struct dt_opening opening = {0};
	int error = dt_open_wp_async(&opening, -1);
	tracker->session = opening.session;
	if (!error) {
		tracker->session->lock.is_quiet = true;
		error = dt_cards_open(tracker->session, opening.cursor, (uint32_t)__builtin_ctzl(card_size),
				      flags & DT_BYTES, &tracker->cards);
	}
	if (!error && flags & DT_KEEP_HUGE_PAGES)
		error = keep_huge_pages(tracker->session);
	if (!error && flags & DT_STOP_THREADS)
		error = dt_session_stop_threads(tracker->session, SIGURG, DT_STOP_LIMIT_NS);
	if (error)
		close_tracker(tracker);
	else
		*tracker_ret = tracker;
	return error;
}

// Quiet: a thread that is cancelled in the middle would leave descriptors open, or a range that has no cards.

int dt_tracker_open(size_t card_size, unsigned flags, struct dt_tracker **tracker_ret)
{
	const unsigned known = DT_BYTES | DT_STOP_THREADS | DT_KEEP_HUGE_PAGES;
	if (!card_size || card_size & (card_size - 1) || flags & ~known)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	int error = open_tracker(card_size, flags, tracker_ret);
	dt_quiet_end(&quiet);
	return error;
}

int dt_tracker_stop_threads(struct dt_tracker *tracker, int signal, uint64_t limit_ns)
{
	if (!limit_ns)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	int error = dt_session_stop_threads(tracker->session, signal, limit_ns);
	dt_quiet_end(&quiet);
	return error;
}

void dt_tracker_close(struct dt_tracker *tracker)
{
	if (!tracker)
		return;
	struct dt_quiet quiet = dt_quiet_begin();
	close_tracker(tracker);
	dt_quiet_end(&quiet);
}

static int add_range(struct dt_tracker *tracker, uint64_t from, uint64_t to, unsigned flags, uint64_t *first_card)
{
	struct dt_session *session = tracker->session;
	struct dt_failure failure;
	uint32_t page_shift = session->backend.page_shift;
	uint64_t page = 1ULL << page_shift, region, first = 0;
	int error = dt_session_add(session, from & ~(page - 1), (to + page - 1) & ~(page - 1), page_shift, flags,
				   &region, &failure);
	if (error)
		return error;
	error = dt_cards_add(tracker->cards, region, from, to, &first);
	if (error)
		dt_session_remove(session, region);
	else if (first_card)
		*first_card = first;
	return error;
}

int dt_tracker_add(struct dt_tracker *tracker, void *start, size_t bytes, unsigned flags, uint64_t *first_card)
{
	uint64_t from = (uintptr_t)start, to = from + bytes;
	if (!bytes || to < from || flags & ~(unsigned)DT_SPARSE)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	int error = add_range(tracker, from, to, flags, first_card);
	dt_quiet_end(&quiet);
	return error;
}

static int remove_range(struct dt_tracker *tracker, uint64_t start)
{
	uint64_t region;
	int error = dt_cards_remove(tracker->cards, start, &region);
	if (error)
		return error;
	error = dt_session_remove(tracker->session, region);
	return error < 0 ? error : 0;
}

int dt_tracker_remove(struct dt_tracker *tracker, void *start)
{
	struct dt_quiet quiet = dt_quiet_begin();
	int error = remove_range(tracker, (uintptr_t)start);
	dt_quiet_end(&quiet);
	return error;
}

uint64_t dt_tracker_cards(struct dt_tracker *tracker)
{
	return dt_cards_count(tracker->cards);
}

size_t dt_tracker_map_bytes(struct dt_tracker *tracker)
{
	return dt_cards_map_bytes(tracker->cards);
}

static int look(struct dt_tracker *tracker, int verb, void *map, size_t bytes, uint64_t *dirty)
{
	pthread_testcancel(); // before anything is taken
	int64_t found = dt_cards_look(tracker->cards, verb, 0, 0, map, bytes);
	if (found < 0)
		return (int)found;
	if (dirty)
		*dirty = (uint64_t)found;
	return 0;
}

int dt_tracker_take(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty)
{
	return look(tracker, DT_COLLECT, map, bytes, dirty);
}

int dt_tracker_peek(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty)
{
	return look(tracker, DT_PEEK, map, bytes, dirty);
}

int dt_tracker_mark(struct dt_tracker *tracker, const void *start, size_t bytes)
{
	return dt_cards_mark(tracker->cards, (uint64_t)start, bytes);
}

long dt_tracker_unstopped(struct dt_tracker *tracker, int32_t *threads, size_t room)
{
	return dt_cards_unstopped(tracker->cards, threads, room);
}

long dt_tracker_lost(struct dt_tracker *tracker, struct dt_range *ranges, size_t room)
{
	return dt_cards_lost(tracker->cards, ranges, room);
}
