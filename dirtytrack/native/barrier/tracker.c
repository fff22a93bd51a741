// The interface for native runtimes, which have no Python to open descriptors and to know the kernel. Arguments are
// looked at here; what is done is in calls.h, since it may be another library that does it.
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
#include "calls.h"

enum { FIRST_WAIT = 8, MOST_WAIT = 4096 }; // looks

struct dt_tracker {
	const struct dt_calls *calls; // of the library that has the session
	struct dt_cards *cards;       // of that one
	struct dt_calls others;       // what they are if it is not this one
};

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

// A copy: the table may go before the tracker does.
static void use_calls_of(struct dt_tracker *tracker, const struct dt_calls *calls)
{
	tracker->others = *calls;
	tracker->calls = calls == &dt_own_calls ? calls : &tracker->others;
}

static void end_opening(struct dt_tracker *tracker, int error, struct dt_tracker **tracker_ret)
{
	if (error)
		dt_free(tracker, sizeof *tracker);
	else
		*tracker_ret = tracker;
}

static bool is_card_size(size_t card_size)
{
	return card_size && !(card_size & (card_size - 1));
}

static int open_own(struct dt_tracker *tracker, size_t card_size, unsigned flags, const struct dt_descriptors *given)
{
	struct dt_opening opening = {0};
	int error = open_session(&opening, given);
	if (error)
		return error;
	opening.session->lock.is_quiet = true;
	tracker->calls = &dt_own_calls;
	error = dt_open_cards(opening.session, opening.cursor, card_size, flags & DT_BYTES, &tracker->cards);
	if (error)
		return error;
	error = prepare(opening.session, flags, given->tasks);
	if (error)
		dt_own_calls.close(tracker->cards);
	return error;
}

// Quiet: a thread that is cancelled in the middle would leave what it has opened so far.

int dt_tracker_open_with(size_t card_size, unsigned flags, const struct dt_descriptors *descriptors,
			 struct dt_tracker **tracker_ret)
{
	const unsigned known = DT_BYTES | DT_STOP_THREADS | DT_KEEP_HUGE_PAGES;
	if (!is_card_size(card_size) || flags & ~known || !descriptors || !tracker_ret)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	struct dt_tracker *tracker = dt_alloc(sizeof *tracker);
	int error = tracker ? open_own(tracker, card_size, flags, descriptors) : -ENOMEM;
	end_opening(tracker, error, tracker_ret);
	dt_quiet_end(&quiet);
	return error;
}

int dt_tracker_open(size_t card_size, unsigned flags, struct dt_tracker **tracker_ret)
{
	const struct dt_descriptors none = {-1, -1, -1};
	return dt_tracker_open_with(card_size, flags, &none, tracker_ret);
}

int dt_tracker_open_shared(struct dt_tracker *with, size_t card_size, unsigned flags, struct dt_tracker **tracker_ret)
{
	if (!with || !tracker_ret || !is_card_size(card_size) || flags & ~(unsigned)DT_BYTES)
		return -EINVAL;
	struct dt_quiet quiet = dt_quiet_begin();
	struct dt_tracker *tracker = dt_alloc(sizeof *tracker);
	int error = tracker ? with->calls->share(with->cards, card_size, flags, &tracker->cards) : -ENOMEM;
	if (!error)
		use_calls_of(tracker, with->calls);
	end_opening(tracker, error, tracker_ret);
	dt_quiet_end(&quiet);
	return error;
}

int dt_tracker_open_on(const struct dt_api *api, size_t card_size, unsigned flags, struct dt_tracker **tracker_ret)
{
	if (!api || !tracker_ret || !is_card_size(card_size) || flags & ~(unsigned)DT_BYTES)
		return -EINVAL;
	if (api->version != DT_API_VERSION || api->bytes < sizeof *api)
		return -DT_EVERSION;
	struct dt_quiet quiet = dt_quiet_begin();
	struct dt_tracker *tracker = dt_alloc(sizeof *tracker);
	int error = tracker ? api->open(api->session, card_size, flags, &tracker->cards) : -ENOMEM;
	if (!error)
		use_calls_of(tracker, &api->calls);
	end_opening(tracker, error, tracker_ret);
	dt_quiet_end(&quiet);
	return error;
}

int dt_tracker_stop_threads(struct dt_tracker *tracker, int signal, uint64_t limit_ns)
{
	return tracker && limit_ns ? tracker->calls->stop_threads(tracker->cards, signal, limit_ns) : -EINVAL;
}

void dt_tracker_close(struct dt_tracker *tracker)
{
	if (!tracker)
		return;
	struct dt_quiet quiet = dt_quiet_begin();
	tracker->calls->close(tracker->cards);
	dt_free(tracker, sizeof *tracker);
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
	int error = tracker->calls->add(tracker->cards, range.start, range.stop, flags, &first);
	if (!error && first_card)
		*first_card = first;
	return error;
}

int dt_tracker_remove(struct dt_tracker *tracker, void *start, size_t bytes)
{
	struct dt_run part;
	if (!tracker || !addresses(start, bytes, &part))
		return -EINVAL;
	return tracker->calls->remove(tracker->cards, part.start, part.stop);
}

int dt_tracker_replace(struct dt_tracker *tracker, void *start, size_t bytes)
{
	struct dt_run part;
	if (!tracker || !addresses(start, bytes, &part))
		return -EINVAL;
	return tracker->calls->replace(tracker->cards, part.start, part.stop);
}

uint64_t dt_tracker_cards(struct dt_tracker *tracker)
{
	return tracker ? tracker->calls->count(tracker->cards) : 0;
}

size_t dt_tracker_map_bytes(struct dt_tracker *tracker)
{
	return tracker ? tracker->calls->map_bytes(tracker->cards) : 0;
}

int dt_tracker_prepare(struct dt_tracker *tracker)
{
	return tracker ? tracker->calls->prepare(tracker->cards) : -EINVAL;
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
	return tell(tracker->calls->look(tracker->cards, verb, 0, 0, map, bytes), dirty);
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
	return tell(tracker->calls->look_at(tracker->cards, verb, part.start, part.stop, map, map_bytes), dirty);
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
	return tracker->calls->list_runs(tracker->cards, verb_of(flags), from, to, runs, room);
}

int dt_write_watch(struct dt_tracker *tracker, unsigned flags, const void *start, size_t bytes, void **listed,
		   size_t *count, size_t *granularity)
{
	struct dt_run range;
	size_t page_size;
	if (!tracker || flags & ~(unsigned)DT_LIST_TAKE || !listed || !count || !addresses(start, bytes, &range))
		return -EINVAL;
	pthread_testcancel();
	long found = tracker->calls->list_pages(tracker->cards, verb_of(flags), range.start, range.stop, listed, *count,
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
	return (int)tracker->calls->list_pages(tracker->cards, DT_COLLECT, range.start, range.stop, NULL, 0,
					       &page_size);
}

int dt_tracker_mark(struct dt_tracker *tracker, const void *start, size_t bytes)
{
	return tracker ? tracker->calls->mark(tracker->cards, (uintptr_t)start, bytes) : -EINVAL;
}

long dt_tracker_unstopped(struct dt_tracker *tracker, int32_t *threads, size_t room)
{
	return tracker && (threads || !room) ? tracker->calls->unstopped(tracker->cards, threads, room) : -EINVAL;
}

long dt_tracker_ranges(struct dt_tracker *tracker, struct dt_range *ranges, size_t room)
{
	return tracker && (ranges || !room) ? tracker->calls->list(tracker->cards, false, ranges, room) : -EINVAL;
}

long dt_tracker_lost(struct dt_tracker *tracker, struct dt_range *ranges, size_t room)
{
	return tracker && (ranges || !room) ? tracker->calls->list(tracker->cards, true, ranges, room) : -EINVAL;
}
