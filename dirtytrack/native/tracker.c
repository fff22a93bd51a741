// The tracker itself: its lock, its memory, its life.
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

int dt_tracker_usable(const struct dt_tracker *tracker)
{
	if (!dt_is_address_space(tracker->address_space))
		return -DT_EFORKED;
	return __atomic_load_n(&tracker->closed, __ATOMIC_RELAXED) ? -DT_ECLOSED : 0;
}

int dt_enter(struct dt_tracker *tracker)
{
	int error = dt_tracker_usable(tracker);
	if (error)
		return error;
	pthread_mutex_lock(&tracker->lock);
	return tracker->closed ? dt_leave(tracker, -DT_ECLOSED) : 0;
}

int dt_leave(struct dt_tracker *tracker, int result)
{
	pthread_mutex_unlock(&tracker->lock);
	return result;
}

uint64_t dt_tracker_generation(struct dt_tracker *tracker)
{
	if (dt_enter(tracker) < 0)
		return 0;
	uint64_t generation = tracker->generation;
	dt_leave(tracker, 0);
	return generation;
}

int dt_tracker_open(int userfaultfd, int pagemap, int blind_to_holes, struct dt_tracker **tracker_ret,
		    uint64_t *cursor_ret)
{
	struct dt_tracker *tracker = dt_alloc(sizeof *tracker);
	if (!tracker) {
		close(userfaultfd);
		close(pagemap);
		return -ENOMEM;
	}
	*tracker = (struct dt_tracker){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.references = 1,
		.address_space = dt_address_space(),
		.backend = &dt_wp_async,
		.userfaultfd = userfaultfd,
		.pagemap = pagemap,
		.blind_to_holes = blind_to_holes,
		.page_shift = (uint32_t)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE)),
		.vec = dt_alloc(DT_VEC * sizeof *tracker->vec),
	};
	int error = tracker->vec && tracker->address_space ? dt_cursor_open(tracker, cursor_ret) : -ENOMEM;
	if (error) {
		dt_tracker_release(tracker);
		return error;
	}
	*tracker_ret = tracker;
	return 0;
}

static void close_descriptors(struct dt_tracker *tracker)
{
	close(tracker->userfaultfd);
	close(tracker->pagemap);
	__atomic_store_n(&tracker->closed, true, __ATOMIC_RELAXED);
}

// What a closed tracker has no use for.
static void free_memory(struct dt_tracker *tracker)
{
	dt_free_spare_buffers(tracker);
	for (int i = 0; i < 2; i++) {
		dt_free(tracker->spare[i], tracker->spare_room[i] * sizeof *tracker->spare[i]);
		tracker->spare[i] = NULL;
	}
	dt_free(tracker->scratch, tracker->scratch_room * sizeof *tracker->scratch);
	dt_free(tracker->regions, tracker->region_room * sizeof *tracker->regions);
	dt_free(tracker->slots, tracker->slot_room * sizeof *tracker->slots);
	dt_free(tracker->cursors, tracker->cursor_room * sizeof *tracker->cursors);
	dt_free(tracker->vec, DT_VEC * sizeof *tracker->vec);
	tracker->scratch = NULL;
	tracker->regions = NULL;
	tracker->slots = NULL;
	tracker->cursors = NULL;
	tracker->vec = NULL;
}

void dt_tracker_close(struct dt_tracker *tracker)
{
	// An ioctl on an inherited userfaultfd would act on the parent; the lock may be held by a thread of the parent.
	if (!dt_is_address_space(tracker->address_space)) {
		if (!tracker->closed)
			close_descriptors(tracker);
		return;
	}
	if (dt_enter(tracker) < 0)
		return;
	dt_remove_all(tracker); // by hand: a forked child may hold the descriptor open
	dt_close_cursors(tracker);
	close_descriptors(tracker);
	free_memory(tracker);
	dt_leave(tracker, 0);
}

void dt_tracker_release(struct dt_tracker *tracker)
{
	dt_tracker_close(tracker);
	dt_tracker_drop(tracker);
}

void dt_tracker_drop(struct dt_tracker *tracker)
{
	if (__atomic_sub_fetch(&tracker->references, 1, __ATOMIC_ACQ_REL))
		return;
	free_memory(tracker);
	dt_free(tracker, sizeof *tracker);
}
