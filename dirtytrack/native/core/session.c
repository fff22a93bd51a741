// The session itself, and what it is asked that needs no scan.
#include "session.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../base/address_space.h"
#include "../base/memory.h"
#include "../base/patience.h"
#include "../kernel/touch.h"

static void close_descriptors(const struct dt_backend *backend)
{
	if (backend->userfaultfd >= 0)
		close(backend->userfaultfd);
	if (backend->pagemap >= 0)
		close(backend->pagemap);
}

static void free_memory(struct dt_session *session)
{
	if (session->backend.ops->free)
		session->backend.ops->free(&session->backend);
	dt_scan_context_free(&session->scan);
	dt_free_spare_buffers(&session->spare);
	dt_free_double_check(&session->double_check, session->backend.page_shift);
	dt_free_requests(&session->requests);
	dt_free_regions(&session->regions);
	dt_free_cursors(&session->cursors);
}

int dt_session_new(const struct dt_backend *like, struct dt_session **session_ret)
{
	struct dt_session *session = dt_alloc(sizeof *session);
	if (!session) {
		close_descriptors(like);
		return -ENOMEM;
	}
	*session = (struct dt_session){.backend = *like, .references = 1, .users = 1, .worker = DT_WORKER_INITIALIZER};
	session->backend.page_shift = (uint32_t)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE));
	int error = dt_lock_init(&session->lock);
	if (!error)
		error = dt_scan_context_init(&session->scan);
	if (!error && like->ops->open)
		error = like->ops->open(&session->backend);
	if (error) {
		dt_shut_session(session);
		dt_session_drop(session);
		return error;
	}
	*session_ret = session;
	return 0;
}

void dt_session_hold(struct dt_session *session)
{
	__atomic_add_fetch(&session->references, 1, __ATOMIC_RELAXED);
}

void dt_session_drop(struct dt_session *session)
{
	if (__atomic_sub_fetch(&session->references, 1, __ATOMIC_ACQ_REL))
		return;
	dt_leave_rivals(&session->rival); // a forked child's; else it has left
	if (dt_is_address_space(session->lock.address_space))
		free_memory(session); // if it is left
	dt_free(session, sizeof *session);
}

void dt_shut_session(struct dt_session *session)
{
	dt_lock_close(&session->lock); // first: a child that is forked now closes no number that is another file's
	close_descriptors(&session->backend);
	dt_stopping_close(&session->stopping);
	free_memory(session);
}

void dt_shut_forked_session(struct dt_session *session)
{
	if (session->lock.closed)
		return;
	close_descriptors(&session->backend);
	dt_stopping_forget(&session->stopping);
	dt_lock_close(&session->lock);
}

int dt_session_usable(const struct dt_session *session)
{
	return dt_lock_usable(&session->lock);
}

uint64_t dt_session_generation(struct dt_session *session)
{
	if (dt_enter(&session->lock) < 0)
		return 0;
	uint64_t generation = session->regions.generation;
	dt_leave(&session->lock, 0);
	return generation;
}

int dt_session_locate(struct dt_session *session, uint64_t id, uint64_t address, uint64_t *offset, uint32_t *page_shift)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	const struct dt_region *region = dt_find_region(&session->regions, id);
	if (!region)
		return dt_leave(&session->lock, -DT_ECLOSED);
	*offset = address - region->start;
	*page_shift = region->page_shift;
	return dt_leave(&session->lock, 0);
}

int dt_session_stop_threads(struct dt_session *session, int signal, uint64_t limit_ns, int tasks)
{
	struct dt_stopping stopping;
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	if (tasks < 0 && session->stopping.signal)
		tasks = session->stopping.tasks;
	error = dt_stopping_open(&stopping, signal, limit_ns, tasks);
	if (!error) {
		dt_stopping_close(&session->stopping);
		session->stopping = stopping;
	}
	return dt_leave(&session->lock, error);
}

int dt_session_contents(struct dt_session *session, uint64_t start, size_t bytes, void *to, uint64_t *refused_ret)
{
	const struct dt_backend *backend = &session->backend;
	dt_takes_copy(bytes);
	if (!backend->ops->contents || dt_enter(&session->lock) < 0) // closed meanwhile: there is no other copy
		return dt_copy_from(start, to, bytes, refused_ret);
	return dt_leave(&session->lock, backend->ops->contents(backend, start, bytes, to, refused_ret));
}

// One that can't be used finds nothing any more.
static void tell_reading(struct dt_session *session, bool begins)
{
	if (!session->backend.ops->read || dt_enter(&session->lock) < 0)
		return;
	session->backend.ops->read(&session->backend, begins);
	dt_leave(&session->lock, 0);
}

void dt_begin_reading(struct dt_session *session)
{
	tell_reading(session, true);
}

void dt_end_reading(struct dt_session *session)
{
	tell_reading(session, false);
}

int dt_session_disarm(struct dt_session *session, uint64_t start, uint64_t stop)
{
	int error = dt_enter(&session->lock);
	if (error)
		return error;
	if (session->backend.ops->disarm)
		session->backend.ops->disarm(&session->backend, start, stop);
	return dt_leave(&session->lock, 0);
}
