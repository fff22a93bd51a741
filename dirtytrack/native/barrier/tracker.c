// The interface for native runtimes, which have no Python to open descriptors and to know the kernel: a session with a
// card table. Arguments are looked at here.
#define _GNU_SOURCE
#include "../include/dirtytrack.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "../backends/keep_huge.h"
#include "../backends/opening.h"
#include "../base/memory.h"
#include "../core/collect.h"
#include "../core/cursor.h"
#include "../core/lifetime.h"
#include "card_map.h"
#include "listing.h"
#include "ranges.h"

enum { FIRST_WAIT = 8, MOST_WAIT = 4096 }; // looks

struct dt_tracker {
	struct dt_session *session;
	uint64_t cursor;
	struct dt_cards *cards;
};

// The last one closes the session, with all that there is of it.
static void leave_session(struct dt_tracker *tracker)
{
	struct dt_session *session = tracker->session;
	bool is_last = __atomic_sub_fetch(&session->users, 1, __ATOMIC_ACQ_REL) == 0;
	if (!is_last && tracker->cards)
		dt_ranges_remove_all(tracker->cards);
	dt_cards_close(tracker->cards);
	if (is_last) {
		dt_session_release(session);
	} else {
		dt_cursor_close(session, tracker->cursor);
		dt_session_drop(session);
	}
}

static void close_tracker(struct dt_tracker *tracker)
{
	if (tracker->session)
		leave_session(tracker);
	dt_free(tracker, sizeof *tracker);
}

static int keep_huge_pages(struct dt_session *session)
{
	int error = dt_session_keep_huge_pages(session, FIRST_WAIT, MOST_WAIT);
	return error == -ENOMEM || error == -EAGAIN ? error : 0;
}

static int prepare(struct dt_session *session, unsigned flags, int tasks)
{
	int error = flags & DT_KEEP_HUGE_PAGES ? keep_huge_pages(session) : 0;
	if (!error && flags & DT_STOP_THREADS)
		error = dt_session_stop_threads(session, SIGURG, DT_STOP_LIMIT_NS, tasks);
	return error;
}

// A copy of a descriptor, in *copy_ret; -1, as it is, is one that has to be opened.
static int copy(int descriptor, int *copy_ret)
{
	*copy_ret = descriptor == -1 ? -1 : fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
	return descriptor != -1 && *copy_ret < 0 ? -errno : 0;
}

static int open_session(struct dt_opening *opening, const struct dt_descriptors *given)
{
	int userfaultfd, pagemap;
	int error = copy(given->userfaultfd, &userfaultfd);
	if (error)
		return error;
	error = copy(given->pagemap, &pagemap);
	if (!error)
		return dt_open_wp_async_over(opening, userfaultfd, pagemap, -1);
	if (userfaultfd >= 0)
		close(userfaultfd);
	return error;
}

static int open_cards(struct dt_tracker *tracker, size_t card_size, unsigned flags)
{
	return dt_cards_open(tracker->session, tracker->cursor, (uint32_t)__builtin_ctzl(card_size), flags & DT_BYTES,
			     &tracker->cards);
}

static int open_tracker(size_t card_size, unsigned flags, const struct dt_descriptors *given,
			struct dt_tracker **tracker_ret)
{
	struct dt_tracker *tracker = dt_alloc(sizeof *tracker);
	if (!tracker)
		return -ENOMEM;
	struct dt_opening opening = {0};
	int error = open_session(&opening, given);
	tracker->session = opening.session;
	tracker->cursor = opening.cursor;
	if (!error) {
		tracker->session->lock.is_quiet = true;
		tracker->session->users = 1;
		error = open_cards(tracker, card_size, flags);
	}
	if (!error)
		error = prepare(tracker->session, flags, given->tasks);
	if (error)
		close_tracker(tracker);
	else
		*tracker_ret = tracker;
	return error;
}

// Quiet: a thread that is cancelled in the middle would leave descriptors open, or a range that has no cards.

int dt_tracker_open_with(size_t card_size, unsigned flags, const struct dt_descriptors *descriptors,
			 struct dt_tracker **tracker_ret)
{
	const unsigned known = DT_BYTES | DT_STOP_THREADS | DT_KEEP_HUGE_PAGES;
	if (!card_size || card_size & (card_size - 1) || flags & ~known || !descriptors || !tracker_ret)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	int error = open_tracker(card_size, flags, descriptors, tracker_ret);
	dt_quiet_end(&quiet);
	return error;
}

int dt_tracker_open(size_t card_size, unsigned flags, struct dt_tracker **tracker_ret)
{
	const struct dt_descriptors none = {-1, -1, -1};
	return dt_tracker_open_with(card_size, flags, &none, tracker_ret);
}

static int open_shared(struct dt_tracker *with, size_t card_size, unsigned flags, struct dt_tracker **tracker_ret)
{
	uint64_t cursor;
	struct dt_tracker *tracker = dt_alloc(sizeof *tracker);
	if (!tracker)
		return -ENOMEM;
	int error = dt_cursor_open(with->session, &cursor);
	if (error) {
		dt_free(tracker, sizeof *tracker);
		return error;
	}
	*tracker = (struct dt_tracker){.session = with->session, .cursor = cursor};
	dt_session_hold(tracker->session);
	__atomic_add_fetch(&tracker->session->users, 1, __ATOMIC_RELAXED);
	error = open_cards(tracker, card_size, flags);
	if (error)
		close_tracker(tracker);
	else
		*tracker_ret = tracker;
	return error;
}

int dt_tracker_open_shared(struct dt_tracker *with, size_t card_size, unsigned flags, struct dt_tracker **tracker_ret)
{
	if (!with || !tracker_ret || !card_size || card_size & (card_size - 1) || flags & ~(unsigned)DT_BYTES)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	int error = open_shared(with, card_size, flags, tracker_ret);
	dt_quiet_end(&quiet);
	return error;
}

int dt_tracker_stop_threads(struct dt_tracker *tracker, int signal, uint64_t limit_ns)
{
	if (!tracker || !limit_ns)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	int error = dt_session_stop_threads(tracker->session, signal, limit_ns, -1);
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

// Some bytes, and where they end; false: there are none, or they wrap around.
static bool addresses(const void *start, size_t bytes, struct dt_run *run_ret)
{
	uint64_t from = (uintptr_t)start;
	*run_ret = (struct dt_run){from, from + bytes};
	return run_ret->start < run_ret->stop;
}

int dt_tracker_add(struct dt_tracker *tracker, void *start, size_t bytes, unsigned flags, uint64_t *first_card)
{
	struct dt_run range;
	uint64_t first = 0;
	if (!tracker || !addresses(start, bytes, &range) || flags & ~(unsigned)DT_SPARSE)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	int error = dt_ranges_add(tracker->cards, range.start, range.stop, flags, &first);
	dt_quiet_end(&quiet);
	if (!error && first_card)
		*first_card = first;
	return error;
}

int dt_tracker_remove(struct dt_tracker *tracker, void *start, size_t bytes)
{
	struct dt_run part;
	if (!tracker || !addresses(start, bytes, &part))
		return -EINVAL;
	return dt_ranges_remove(tracker->cards, part.start, part.stop);
}

int dt_tracker_replace(struct dt_tracker *tracker, void *start, size_t bytes)
{
	struct dt_run part;
	if (!tracker || !addresses(start, bytes, &part))
		return -EINVAL;
	return dt_ranges_replace(tracker->cards, part.start, part.stop);
}

uint64_t dt_tracker_cards(struct dt_tracker *tracker)
{
	return tracker ? dt_cards_count(tracker->cards) : 0;
}

size_t dt_tracker_map_bytes(struct dt_tracker *tracker)
{
	return tracker ? dt_cards_map_bytes(tracker->cards) : 0;
}

int dt_tracker_prepare(struct dt_tracker *tracker)
{
	return tracker ? dt_cards_prepare(tracker->cards) : -EINVAL;
}

static int tell(int64_t found, uint64_t *dirty)
{
	if (found < 0)
		return (int)found;
	if (dirty)
		*dirty = (uint64_t)found;
	return 0;
}

static int look(struct dt_tracker *tracker, int verb, void *map, size_t bytes, uint64_t *dirty)
{
	if (!tracker || (!map && bytes))
		return -EINVAL;
	pthread_testcancel(); // before anything is taken
	return tell(dt_cards_look(tracker->cards, verb, 0, 0, map, bytes), dirty);
}

int dt_tracker_take(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty)
{
	return look(tracker, DT_COLLECT, map, bytes, dirty);
}

int dt_tracker_peek(struct dt_tracker *tracker, void *map, size_t bytes, uint64_t *dirty)
{
	return look(tracker, DT_PEEK, map, bytes, dirty);
}

static int look_at(struct dt_tracker *tracker, int verb, const void *start, size_t bytes, void *map, size_t map_bytes,
		   uint64_t *dirty)
{
	struct dt_run part;
	if (!tracker || !map || !addresses(start, bytes, &part))
		return -EINVAL;
	pthread_testcancel();
	return tell(dt_cards_look_at(tracker->cards, verb, part.start, part.stop, map, map_bytes), dirty);
}

int dt_tracker_take_range(struct dt_tracker *tracker, const void *start, size_t bytes, void *map, size_t map_bytes,
			  uint64_t *dirty)
{
	return look_at(tracker, DT_COLLECT, start, bytes, map, map_bytes, dirty);
}

int dt_tracker_peek_range(struct dt_tracker *tracker, const void *start, size_t bytes, void *map, size_t map_bytes,
			  uint64_t *dirty)
{
	return look_at(tracker, DT_PEEK, start, bytes, map, map_bytes, dirty);
}

static int verb_of(unsigned flags)
{
	return flags & DT_LIST_TAKE ? DT_COLLECT : DT_PEEK;
}

long dt_tracker_runs(struct dt_tracker *tracker, unsigned flags, const void *start, size_t bytes, struct dt_range *runs,
		     size_t room)
{
	uint64_t from = (uintptr_t)start, to = bytes > UINT64_MAX - from ? UINT64_MAX : from + bytes;
	if (!tracker || flags & ~(unsigned)DT_LIST_TAKE || (!runs && room))
		return -EINVAL;
	pthread_testcancel();
	return dt_list_runs(tracker->cards, verb_of(flags), from, to, runs, room);
}

int dt_write_watch(struct dt_tracker *tracker, unsigned flags, const void *start, size_t bytes, void **listed,
		   size_t *count, size_t *granularity)
{
	struct dt_run range;
	size_t page_size;
	if (!tracker || flags & ~(unsigned)DT_LIST_TAKE || !listed || !count || !addresses(start, bytes, &range))
		return -EINVAL;
	pthread_testcancel();
	long found = dt_list_pages(tracker->cards, verb_of(flags), range.start, range.stop, listed, *count,
				   granularity ? granularity : &page_size);
	if (found >= 0)
		*count = (size_t)found;
	return found < 0 ? (int)found : 0;
}

int dt_reset_write_watch(struct dt_tracker *tracker, const void *start, size_t bytes)
{
	struct dt_run range;
	size_t page_size;
	if (!tracker || !addresses(start, bytes, &range))
		return -EINVAL;
	pthread_testcancel();
	return (int)dt_list_pages(tracker->cards, DT_COLLECT, range.start, range.stop, NULL, 0, &page_size);
}

int dt_tracker_mark(struct dt_tracker *tracker, const void *start, size_t bytes)
{
	return tracker ? dt_cards_mark(tracker->cards, (uintptr_t)start, bytes) : -EINVAL;
}

long dt_tracker_unstopped(struct dt_tracker *tracker, int32_t *threads, size_t room)
{
	return tracker && (threads || !room) ? dt_cards_unstopped(tracker->cards, threads, room) : -EINVAL;
}

long dt_tracker_ranges(struct dt_tracker *tracker, struct dt_range *ranges, size_t room)
{
	return tracker && (ranges || !room) ? dt_ranges_list(tracker->cards, false, ranges, room) : -EINVAL;
}

long dt_tracker_lost(struct dt_tracker *tracker, struct dt_range *ranges, size_t room)
{
	return tracker && (ranges || !room) ? dt_ranges_list(tracker->cards, true, ranges, room) : -EINVAL;
}
