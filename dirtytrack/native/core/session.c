// The session itself: its lock, its memory, its life.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

int dt_grow(void *array, size_t *room, size_t wanted, size_t size)
{
	void **items = array;
	if (wanted <= *room)
		return 0;
	size_t more = *room * 2 > wanted ? *room * 2 : wanted;
	void *grown = dt_alloc(more * size);
	if (!grown)
		return -ENOMEM;
	if (*room)
		memcpy(grown, *items, *room * size);
	dt_free(*items, *room * size);
	*items = grown;
	*room = more;
	return 0;
}

int dt_make_room(void *array, size_t *room, size_t wanted, size_t size)
{
	void **items = array;
	if (wanted <= *room)
		return 0;
	void *fresh = dt_alloc(wanted * size);
	if (!fresh)
		return -ENOMEM;
	dt_free(*items, *room * size);
	*items = fresh;
	*room = wanted;
	return 0;
}

int dt_session_usable(const struct dt_session *session)
{
	if (!dt_is_address_space(session->address_space))
		return -DT_EFORKED;
	return __atomic_load_n(&session->closed, __ATOMIC_RELAXED) ? -DT_ECLOSED : 0;
}

int dt_enter(struct dt_session *session)
{
	int error = dt_session_usable(session);
	if (error)
		return error;
	pthread_mutex_lock(&session->lock);
	return session->closed ? dt_leave(session, -DT_ECLOSED) : 0;
}

int dt_leave(struct dt_session *session, int result)
{
	pthread_mutex_unlock(&session->lock);
	return result;
}

uint64_t dt_session_generation(struct dt_session *session)
{
	if (dt_enter(session) < 0)
		return 0;
	uint64_t generation = session->generation;
	dt_leave(session, 0);
	return generation;
}

static void close_descriptors(const struct dt_session *session)
{
	if (session->userfaultfd >= 0)
		close(session->userfaultfd);
	if (session->pagemap >= 0)
		close(session->pagemap);
}

static int open_session(const struct dt_session *like, struct dt_session **session_ret, uint64_t *cursor_ret)
{
	struct dt_session *session = dt_alloc(sizeof *session);
	if (!session) {
		close_descriptors(like);
		return -ENOMEM;
	}
	*session = *like;
	session->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	session->references = 1;
	session->address_space = dt_address_space();
	session->page_shift = (uint32_t)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE));
	session->vec = dt_alloc(DT_VEC * sizeof *session->vec);
	int error = session->vec && session->address_space ? 0 : -ENOMEM;
	if (!error && session->backend->open)
		error = session->backend->open(session);
	if (!error)
		error = dt_cursor_open(session, cursor_ret);
	if (error)
		dt_session_release(session);
	else
		*session_ret = session;
	return error;
}

int dt_session_open(int userfaultfd, int pagemap, int blind_to_holes, struct dt_session **session_ret,
		    uint64_t *cursor_ret)
{
	struct dt_session like = {
		.backend = &dt_backend_wp_async,
		.userfaultfd = userfaultfd,
		.pagemap = pagemap,
		.blind_to_holes = blind_to_holes,
	};
	return open_session(&like, session_ret, cursor_ret);
}

int dt_session_open_compare(int pagemap, struct dt_session **session_ret, uint64_t *cursor_ret)
{
	struct dt_session like = {.backend = &dt_backend_compare, .userfaultfd = -1, .pagemap = pagemap};
	return open_session(&like, session_ret, cursor_ret);
}

void dt_session_contents(struct dt_session *session, const void *from, size_t bytes, void *to)
{
	if (!session->backend->contents || dt_enter(session) < 0) { // closed meanwhile: there is no other copy any more
		memcpy(to, from, bytes);
		return;
	}
	session->backend->contents(session, (uint64_t)from, bytes, to);
	dt_leave(session, 0);
}

static void shut(struct dt_session *session)
{
	close_descriptors(session);
	__atomic_store_n(&session->closed, true, __ATOMIC_RELAXED);
}

// What a closed session has no use for.
static void free_memory(struct dt_session *session)
{
	if (session->backend->free)
		session->backend->free(session);
	dt_free_spare_buffers(session);
	for (int i = 0; i < 2; i++) {
		dt_free(session->spare[i], session->spare_room[i] * sizeof *session->spare[i]);
		session->spare[i] = NULL;
	}
	dt_free(session->assumed, session->assumed_room * sizeof *session->assumed);
	session->assumed = NULL;
	dt_free(session->missed, session->missed_room * sizeof *session->missed);
	dt_free(session->page_buffer, 1UL << session->page_shift);
	session->missed = NULL;
	session->page_buffer = NULL;
	dt_free(session->scratch, session->scratch_room * sizeof *session->scratch);
	dt_free(session->regions, session->region_room * sizeof *session->regions);
	dt_free(session->slots, session->slot_room * sizeof *session->slots);
	dt_free(session->cursors, session->cursor_room * sizeof *session->cursors);
	dt_free(session->vec, DT_VEC * sizeof *session->vec);
	session->scratch = NULL;
	session->regions = NULL;
	session->slots = NULL;
	session->cursors = NULL;
	session->vec = NULL;
}

void dt_session_close(struct dt_session *session)
{
	// An ioctl on an inherited userfaultfd would act on the parent; the lock may be held by a thread of the parent.
	if (!dt_is_address_space(session->address_space)) {
		if (!session->closed)
			shut(session);
		return;
	}
	if (dt_enter(session) < 0)
		return;
	dt_remove_all(session); // by hand: a forked child may hold the descriptor open
	dt_close_cursors(session);
	shut(session);
	free_memory(session);
	dt_leave(session, 0);
}

void dt_session_release(struct dt_session *session)
{
	dt_session_close(session);
	dt_session_drop(session);
}

void dt_session_hold(struct dt_session *session)
{
	__atomic_add_fetch(&session->references, 1, __ATOMIC_RELAXED);
}

void dt_session_drop(struct dt_session *session)
{
	if (__atomic_sub_fetch(&session->references, 1, __ATOMIC_ACQ_REL))
		return;
	free_memory(session);
	dt_free(session, sizeof *session);
}
