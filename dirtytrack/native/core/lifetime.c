// The first and the last call on a session.
#include "lifetime.h"

#include "../base/address_space.h"
#include "cursor.h"
#include "tracking.h"

int dt_open_session(const struct dt_backend *like, struct dt_session **session_ret, uint64_t *cursor_ret)
{
	struct dt_session *session;
	int error = dt_session_new(like, &session);
	if (error)
		return error;
	error = dt_cursor_open(session, cursor_ret);
	if (error)
		dt_session_release(session);
	else if (like->userfaultfd >= 0)
		dt_enter_rivals(&session->rival);
	if (!error)
		*session_ret = session;
	return error;
}

void dt_session_close(struct dt_session *session)
{
	// An ioctl on an inherited userfaultfd would act on the parent; the lock may be held by a thread of the parent.
	if (!dt_is_address_space(session->lock.address_space)) {
		dt_shut_forked_session(session);
		return;
	}
	dt_leave_rivals(&session->rival);
	dt_worker_stop(&session->worker); // it wants the lock
	if (dt_enter(&session->lock) < 0)
		return;
	dt_remove_all(session); // by hand: a forked child may hold the descriptor open
	dt_close_cursors(session);
	dt_shut_session(session);
	dt_leave(&session->lock, 0);
}

void dt_session_release(struct dt_session *session)
{
	dt_session_close(session);
	dt_session_drop(session);
}
