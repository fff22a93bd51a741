// The trackers of this library: card tables that have a cursor of a session, and regions of their own.
#include "calls.h"

#include <errno.h>

#include "../core/cursor.h"
#include "../core/lifetime.h"
#include "card_map.h"
#include "listing.h"
#include "ranges.h"

// Quiet: a thread that is cancelled in the middle would leave descriptors open, or a range that has no cards.

// The last user closes the session, with all that there is of it.
static void leave(struct dt_session *session, uint64_t cursor, struct dt_cards *cards)
{
	bool is_last = __atomic_sub_fetch(&session->users, 1, __ATOMIC_ACQ_REL) == 0;
	if (!is_last && cards)
		dt_ranges_remove_all(cards);
	dt_session_hold(session);
	dt_cards_close(cards);
	if (is_last)
		dt_session_release(session);
	else
		dt_cursor_close(session, cursor);
	dt_session_drop(session);
}

int dt_open_cards(struct dt_session *session, uint64_t cursor, size_t card_size, unsigned flags,
		  struct dt_cards **cards_ret)
{
	int error = dt_cards_open(session, cursor, (uint32_t)__builtin_ctzl(card_size), flags, cards_ret);
	if (error)
		leave(session, cursor, NULL);
	else
		(*cards_ret)->lock.is_native = true;
	return error;
}

static int open_on(struct dt_session *session, size_t card_size, unsigned flags, struct dt_cards **cards_ret)
{
	uint64_t cursor;
	struct dt_patience *patience = dt_patience_suspend();
	struct dt_quiet quiet = dt_quiet_begin();
	int error = dt_cursor_open(session, &cursor);
	if (!error) {
		__atomic_add_fetch(&session->users, 1, __ATOMIC_RELAXED);
		error = dt_open_cards(session, cursor, card_size, flags, cards_ret);
	}
	dt_quiet_end(&quiet);
	dt_patience_resume(patience);
	return error;
}

static int share(struct dt_cards *cards, size_t card_size, unsigned flags, struct dt_cards **cards_ret)
{
	return open_on(cards->session, card_size, flags, cards_ret);
}

static void close(struct dt_cards *cards)
{
	struct dt_patience *patience = dt_patience_suspend();
	struct dt_quiet quiet = dt_quiet_begin();
	leave(cards->session, cards->cursor, cards);
	dt_quiet_end(&quiet);
	dt_patience_resume(patience);
}

static int stop_threads(struct dt_cards *cards, int signal, uint64_t limit_ns)
{
	struct dt_quiet quiet = dt_quiet_begin();
	int error = dt_session_stop_threads(cards->session, signal, limit_ns, -1);
	dt_quiet_end(&quiet);
	return error;
}

const struct dt_calls dt_own_calls = {
	.close = close,
	.share = share,
	.stop_threads = stop_threads,
	.add = dt_ranges_add,
	.remove = dt_ranges_remove,
	.replace = dt_ranges_replace,
	.list = dt_ranges_list,
	.count = dt_cards_count,
	.map_bytes = dt_cards_map_bytes,
	.prepare = dt_cards_prepare,
	.look = dt_cards_look,
	.look_at = dt_cards_look_at,
	.list_runs = dt_list_runs,
	.list_pages = dt_list_pages,
	.mark = dt_cards_mark,
	.unstopped = dt_cards_unstopped,
};

#ifndef DT_NATIVE_ONLY
static int refuse_to_stop_threads(struct dt_cards *cards, int signal, uint64_t limit_ns)
{
	int error = dt_session_usable(cards->session);
	(void)signal, (void)limit_ns;
	return error ? error : -EPERM;
}

int dt_session_api(struct dt_session *session, struct dt_api *api_ret)
{
	int error = dt_session_usable(session);
	if (error)
		return error;
	dt_lock_become_quiet(&session->lock);
	*api_ret = (struct dt_api){
		.version = DT_API_VERSION,
		.bytes = sizeof *api_ret,
		.session = session,
		.open = open_on,
		.calls = dt_own_calls,
	};
	api_ret->calls.stop_threads = refuse_to_stop_threads;
	return 0;
}
#endif
