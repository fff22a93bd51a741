// Trackers on a session of somebody else's, through its table alone, beside what that one does with it.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "backends/compare.h"
#include "barrier/calls.h"
#include "driver.h"

static struct dt_api api;

static void open_api(struct dt_session *(*open)(void))
{
	session = open();
	check(dt_session_api(session, &api) == 0);
}

static struct dt_session *open_wp_async(void)
{
	return open_tracker(DT_HOLES_REPORTED);
}

static struct dt_tracker *open_on(uint64_t card_size, unsigned flags)
{
	struct dt_tracker *opened;
	check(dt_tracker_open_on(&api, card_size, flags, &opened) == 0);
	return opened;
}

// The session's opener has all of the arena as a region, and collects everything that is listed: each store is in its
// next epoch, and nothing else, but for what the tracker marks.
static struct {
	uint64_t region, cursor;
	bool is_tracked;
	bool stored[ARENA];
	bool marked; // by the tracker, and not told
	bool told;
} opener;

static void track_arena(void)
{
	uint64_t first = (uint64_t)(arena - memory) / page_size;
	opener.region = add(first, first + ARENA);
	opener.is_tracked = true;
	opener.told = false;
	memset(opener.stored, 0, sizeof opener.stored);
}

static void note_store(uint64_t page)
{
	opener.stored[page] = true;
}

static void untrack_arena(void)
{
	if (opener.is_tracked)
		check(dt_session_remove(session, opener.region) == 0);
	opener.is_tracked = false;
}

static void note_mark(void)
{
	opener.marked = true;
}

static void note_look(void)
{
	opener.told |= opener.marked;
	opener.marked = false;
}

static void collect_listed(void)
{
	bool found[ARENA] = {0};
	struct dt_epoch *epoch = dt_epoch_new(sizeof *epoch);
	uint64_t generation = dt_session_generation(session);
	check(epoch && dt_collect_all(session, opener.cursor, DT_COLLECT, generation, epoch) == 0);
	check(epoch->entry_count == 1 && epoch->buffers.entries[0].region == opener.region);
	for (uint64_t i = 0; i < epoch->run_count; i++)
		for (uint64_t page = epoch->buffers.runs[i].start; page < epoch->buffers.runs[i].stop; page++)
			found[page] = true;
	for (uint64_t page = 0; page < ARENA; page++)
		check(found[page] == opener.stored[page] || (found[page] && (opener.told || opener.marked)));
	epoch->settled = 1;
	dt_epoch_release(epoch);
	memset(opener.stored, 0, sizeof opener.stored);
	opener.told = false;
}

static void step(uint64_t *random)
{
	if (draw(random, 3) == 0 && opener.is_tracked)
		collect_listed();
	else if (!opener.is_tracked)
		track_arena();
}

static const struct beside collecting = {note_store, untrack_arena, note_mark, note_look, step};

static void try_beside_the_opener(uint64_t *random)
{
	for (uint64_t quarter = 1; quarter <= 16; quarter *= 4) { // of a page
		unsigned flags = quarter == 1 ? DT_BYTES : DT_BITS;
		open_api(open_wp_async);
		check(dt_cursor_open(session, &opener.cursor) == 0);
		track_arena();
		struct dt_tracker *tracker = open_on(page_size / 4 * quarter, flags);
		try_fresh_tracker(random, tracker, page_size / 4 * quarter, flags, &collecting);
		dt_session_release(session);
	}
}

// Each function says that the session is closed, and nothing else happens.
static void use_closed(struct dt_tracker *tracker, int error)
{
	struct dt_tracker *other;
	struct dt_range range;
	void *address;
	size_t one = 1, granularity;
	uint8_t map[8];
	memset(map, 0x55, sizeof map);
	check(dt_tracker_open_on(&api, page_size, DT_BITS, &other) == error);
	check(dt_tracker_open_shared(tracker, page_size, DT_BITS, &other) == error);
	check(dt_tracker_stop_threads(tracker, SIGUSR2, 1000) == error);
	check(dt_tracker_add(tracker, arena + 20 * page_size, page_size, DT_DENSE, NULL) == error);
	check(dt_tracker_remove(tracker, arena, 8 * page_size) == error);
	check(dt_tracker_replace(tracker, arena, page_size) == error);
	check(dt_tracker_cards(tracker) == 0 && dt_tracker_map_bytes(tracker) == 0);
	check(dt_tracker_ranges(tracker, &range, 1) == error && dt_tracker_lost(tracker, &range, 1) == error);
	check(dt_tracker_prepare(tracker) == error);
	check(dt_tracker_take(tracker, map, 1, NULL) == error && dt_tracker_peek(tracker, map, 1, NULL) == error);
	check(dt_tracker_take_range(tracker, arena, page_size, map, 1, NULL) == error);
	check(dt_tracker_peek_range(tracker, arena, page_size, map, 1, NULL) == error);
	check(dt_tracker_runs(tracker, DT_LIST_TAKE, arena, page_size, &range, 1) == error);
	check(dt_write_watch(tracker, DT_LIST_TAKE, arena, page_size, &address, &one, &granularity) == error);
	check(dt_reset_write_watch(tracker, arena, page_size) == error);
	check(dt_tracker_mark(tracker, arena, 1) == error);
	check(dt_tracker_unstopped(tracker, NULL, 0) == error);
	for (size_t i = 0; i < sizeof map; i++)
		check(map[i] == 0x55);
}

static void take_one(struct dt_tracker *tracker)
{
	uint64_t dirty;
	uint8_t map;
	check(dt_tracker_take(tracker, &map, 1, &dirty) == 0);
	arena[page_size]++;
	check(dt_tracker_take(tracker, &map, 1, &dirty) == 0 && dirty == 1 && map == 2);
}

// Either is closed first; the table may go once it was read; a child has nothing.
static void try_lifetimes(struct dt_session *(*open)(void))
{
	int status;
	open_api(open);
	struct dt_tracker *first = open_on(page_size, DT_BITS), *second = open_on(page_size, DT_BITS), *third;
	struct dt_api kept = api;
	memset(&api, 0xff, sizeof api);
	check(dt_tracker_open_shared(first, page_size, DT_BITS, &third) == 0);
	api = kept;
	check(dt_tracker_add(first, arena, 8 * page_size, DT_DENSE, NULL) == 0);
	check(dt_tracker_add(second, arena, 8 * page_size, DT_DENSE, NULL) == 0);
	check(dt_tracker_stop_threads(first, SIGUSR2, 1000) == -EPERM);
	take_one(first);
	pid_t child = fork();
	if (child == 0) {
		use_closed(first, -DT_EFORKED);
		dt_tracker_close(first);
		dt_tracker_close(third);
		dt_session_release(session);
		dt_tracker_close(second);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child && status == 0);
	take_one(first);
	dt_tracker_close(first); // which does not close the session
	take_one(second);
	check(dt_session_usable(session) == 0);
	dt_session_close(session);
	use_closed(second, -DT_ECLOSED);
	dt_tracker_close(third);
	dt_session_release(session);
	use_closed(second, -DT_ECLOSED); // which holds what there is of it
	dt_tracker_close(second);
}

static void try_hostile(void)
{
	struct dt_tracker *tracker = NULL;
	open_api(open_wp_async);
	struct dt_api later = api, other = api;
	check(dt_tracker_open_on(NULL, page_size, DT_BITS, &tracker) == -EINVAL);
	check(dt_tracker_open_on(&api, page_size, DT_BITS, NULL) == -EINVAL);
	check(dt_tracker_open_on(&api, 0, DT_BITS, &tracker) == -EINVAL);
	check(dt_tracker_open_on(&api, 3, DT_BITS, &tracker) == -EINVAL);
	check(dt_tracker_open_on(&api, page_size, DT_STOP_THREADS, &tracker) == -EINVAL);
	check(dt_tracker_open_on(&api, page_size, DT_KEEP_HUGE_PAGES, &tracker) == -EINVAL);
	for (uint32_t version = DT_API_VERSION - 1; version <= DT_API_VERSION + 1; version += 2) {
		other.version = version;
		check(dt_tracker_open_on(&other, page_size, DT_BITS, &tracker) == -DT_EVERSION);
	}
	other = api;
	other.bytes -= 8;
	check(dt_tracker_open_on(&other, page_size, DT_BITS, &tracker) == -DT_EVERSION);
	memset(&other, 0, sizeof other); // as a wrong address may look
	check(dt_tracker_open_on(&other, page_size, DT_BITS, &tracker) == -DT_EVERSION);
	check(!tracker);
	later.bytes += 40; // of a later version, which has more
	check(dt_tracker_open_on(&later, page_size, DT_BITS, &tracker) == 0);
	dt_tracker_close(tracker);
	dt_session_close(session);
	check(dt_session_api(session, &api) == -DT_ECLOSED);
	dt_session_release(session);
}

// Beside threads that use the session all the time its lock becomes quiet: nobody holds it then with signals unblocked.
static bool is_over;

static void *use(void *argument)
{
	struct dt_session *own = argument;
	while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED))
		check(dt_session_holds(own, (uintptr_t)arena, (uintptr_t)arena + page_size) == 1);
	return NULL;
}

static void try_becoming_quiet(void)
{
	for (int round = 0; round < 50; round++) {
		pthread_t users[2];
		session = open_wp_async();
		track_arena();
		__atomic_store_n(&is_over, false, __ATOMIC_RELAXED);
		for (int i = 0; i < 2; i++)
			check(pthread_create(&users[i], NULL, use, session) == 0);
		check(!dt_lock_is_quiet(&session->lock));
		check(dt_session_api(session, &api) == 0);
		check(__atomic_load_n(&session->lock.loud, __ATOMIC_SEQ_CST) == 0 && dt_lock_is_quiet(&session->lock));
		__atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
		for (int i = 0; i < 2; i++)
			pthread_join(users[i], NULL);
		dt_session_release(session);
	}
}

void try_api(uint64_t *random)
{
	try_hostile();
	try_lifetimes(open_wp_async);
	try_lifetimes(open_compare);
	try_becoming_quiet();
	try_beside_the_opener(random);
}
