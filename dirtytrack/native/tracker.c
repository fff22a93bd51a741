// Regions and cursors: who is there, and who shares pages with whom.
#define _GNU_SOURCE
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

uint64_t dt_region_pages(const struct dt_region *region)
{
	return (region->stop - region->start) >> region->page_shift;
}

static uint64_t most_runs(const struct dt_region *region)
{
	return (dt_region_pages(region) + 1) / 2;
}

struct dt_region *dt_find_region(const struct dt_tracker *tracker, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	struct dt_region *region = slot < tracker->slot_room ? tracker->slots[slot] : NULL;
	return region && region->id == id ? region : NULL;
}

long dt_find_cursor(const struct dt_tracker *tracker, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	return slot < tracker->cursor_room && tracker->cursors[slot].id == id ? (long)slot : -DT_ECLOSED;
}

struct dt_bits *dt_pending(const struct dt_tracker *tracker, size_t cursor_slot, const struct dt_region *region)
{
	return &tracker->cursors[cursor_slot].pending[(uint32_t)region->id];
}

size_t dt_first_touching(const struct dt_tracker *tracker, uint64_t start)
{
	size_t low = 0, high = tracker->region_count; // reach never falls, so it can be searched
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (tracker->regions[middle]->reach > start)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

#define for_each_touching(region, tracker, start_, stop_)                                                              \
	for (size_t at_ = dt_first_touching(tracker, start_);                                                          \
	     at_ < (tracker)->region_count && (tracker)->regions[at_]->start < (stop_); at_++)                         \
		if (((region) = (tracker)->regions[at_])->stop > (start_))

void dt_feed_cursor(struct dt_tracker *tracker, struct dt_region *region, const struct dt_run *runs, size_t n,
		    size_t slot)
{
	struct dt_bits *pending = dt_pending(tracker, slot, region);
	for (size_t i = 0; i < n; i++) {
		uint64_t start = runs[i].start > region->start ? runs[i].start : region->start;
		uint64_t stop = runs[i].stop < region->stop ? runs[i].stop : region->stop;
		if (start < stop)
			dt_bits_set(pending, (start - region->start) >> region->page_shift,
				    (stop - region->start) >> region->page_shift);
	}
}

void dt_feed_region(struct dt_tracker *tracker, struct dt_region *region, const struct dt_run *runs, size_t n,
		    long except)
{
	for (size_t slot = 0; slot < tracker->cursor_room; slot++)
		if (tracker->cursors[slot].id && (long)slot != except)
			dt_feed_cursor(tracker, region, runs, n, slot);
}

void dt_feed(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	struct dt_run run = {start, stop};
	struct dt_region *region;
	for_each_touching(region, tracker, start, stop)
		dt_feed_region(tracker, region, &run, 1, -1);
}

static void lose(struct dt_tracker *tracker, struct dt_region *region)
{
	if (region->flags & DT_LOST)
		return;
	region->flags |= DT_LOST;
	tracker->lost_count++;
}

void dt_find_losses(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	struct dt_region *region;
	for_each_touching(region, tracker, start, stop)
		if (!(region->flags & DT_LOST) && !tracker->backend->check(tracker, region->start, region->stop))
			lose(tracker, region);
}

int dt_harvest(struct dt_tracker *tracker, const struct dt_region *kind, uint64_t start, uint64_t stop)
{
	uint64_t most = ((stop - start) >> tracker->page_shift) / 2 + 1;
	int error = dt_make_room(&tracker->scratch, &tracker->scratch_room, most, sizeof *tracker->scratch);
	if (error)
		return error;
	struct dt_run *runs = tracker->scratch;
	long n = tracker->backend->scan(tracker, kind, start, stop, true, runs);
	if (n < 0) { // some of it may have been re-armed already: all of it counts as written
		dt_feed(tracker, start, stop);
		return (int)n;
	}
	struct dt_region *region;
	for_each_touching(region, tracker, start, stop)
		dt_feed_region(tracker, region, runs, (size_t)n, -1);
	return 0;
}

// Calls act on every piece of [start, stop) that no tracked region holds.
static int for_each_unheld(struct dt_tracker *tracker, uint64_t start, uint64_t stop,
			   int (*act)(struct dt_tracker *, uint64_t, uint64_t))
{
	struct dt_region *region;
	int result = 0, error;
	for_each_touching(region, tracker, start, stop) {
		if (region->flags & DT_LOST)
			continue;
		if (start < region->start && (error = act(tracker, start, region->start)) < 0)
			result = error;
		if (start < region->stop)
			start = region->stop;
	}
	if (start < stop && (error = act(tracker, start, stop)) < 0)
		result = error;
	return result;
}

static int release(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	tracker->backend->remove(tracker, start, stop);
	return 0;
}

static int release_lost(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	tracker->backend->remove_lost(tracker, start, stop);
	return 0;
}

static int arm_huge(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	return tracker->backend->arm_huge(tracker, start, stop);
}

static void free_region(struct dt_tracker *tracker, struct dt_region *region)
{
	for (size_t slot = 0; slot < tracker->cursor_room; slot++) {
		if (!tracker->cursors[slot].id)
			continue;
		struct dt_bits *pending = dt_pending(tracker, slot, region);
		dt_free(pending->words, dt_bits_bytes(dt_region_pages(region)));
		*pending = (struct dt_bits){0};
	}
	dt_free(region, sizeof *region);
}

static int make_pending(struct dt_cursor *cursor, const struct dt_region *region)
{
	size_t slot = (uint32_t)region->id;
	int error = dt_grow(&cursor->pending, &cursor->pending_room, slot + 1, sizeof *cursor->pending);
	if (error)
		return error;
	cursor->pending[slot].words = dt_alloc(dt_bits_bytes(dt_region_pages(region)));
	return cursor->pending[slot].words ? 0 : -ENOMEM;
}

// All the memory that a region needs, before the first system call of its own.
static int new_region(struct dt_tracker *tracker, const struct dt_region *like, struct dt_region **region_ret)
{
	size_t slot = tracker->first_free_slot;
	while (slot < tracker->slot_room && tracker->slots[slot])
		slot++;
	int error = dt_grow(&tracker->slots, &tracker->slot_room, slot + 1, sizeof *tracker->slots);
	if (!error)
		error = dt_grow(&tracker->regions, &tracker->region_room, tracker->region_count + 1,
				sizeof *tracker->regions);
	if (error)
		return error;
	struct dt_region *region = dt_alloc(sizeof *region);
	if (!region)
		return -ENOMEM;
	*region = *like;
	region->id = ++tracker->next_serial << 32 | slot;
	for (size_t i = 0; i < tracker->cursor_room && !error; i++)
		if (tracker->cursors[i].id)
			error = make_pending(&tracker->cursors[i], region);
	if (error)
		free_region(tracker, region);
	else
		*region_ret = region;
	return error;
}

static void update_reach(struct dt_tracker *tracker, size_t from)
{
	uint64_t reach = from ? tracker->regions[from - 1]->reach : 0;
	for (size_t i = from; i < tracker->region_count; i++) {
		if (tracker->regions[i]->stop > reach)
			reach = tracker->regions[i]->stop;
		tracker->regions[i]->reach = reach;
	}
}

static void insert(struct dt_tracker *tracker, struct dt_region *region)
{
	size_t at = tracker->region_count;
	while (at && tracker->regions[at - 1]->start > region->start)
		at--;
	memmove(tracker->regions + at + 1, tracker->regions + at,
		(tracker->region_count - at) * sizeof *tracker->regions);
	tracker->regions[at] = region;
	tracker->region_count++;
	tracker->slots[(uint32_t)region->id] = region;
	tracker->first_free_slot = (uint32_t)region->id + 1;
	tracker->worst_runs += most_runs(region);
	tracker->generation++;
	update_reach(tracker, at);
}

static void take_out(struct dt_tracker *tracker, struct dt_region *region)
{
	size_t at = dt_first_touching(tracker, region->start);
	while (tracker->regions[at] != region)
		at++;
	tracker->region_count--;
	memmove(tracker->regions + at, tracker->regions + at + 1,
		(tracker->region_count - at) * sizeof *tracker->regions);
	tracker->slots[(uint32_t)region->id] = NULL;
	if ((uint32_t)region->id < tracker->first_free_slot)
		tracker->first_free_slot = (uint32_t)region->id;
	tracker->worst_runs -= most_runs(region);
	tracker->lost_count -= !!(region->flags & DT_LOST);
	tracker->generation++;
	update_reach(tracker, at);
}

// Registers and arms what the region covers. What older regions have coming in shared pages stays theirs.
static int acquire(struct dt_tracker *tracker, const struct dt_region *region, struct dt_failure *failure)
{
	bool huge;
	int error = tracker->backend->add(tracker, region->start, region->stop, &huge, failure);
	if (error)
		return error;
	if (huge && region->page_shift == tracker->page_shift)
		return -DT_EHUGETLB;
	error = dt_harvest(tracker, region, region->start, region->stop);
	if (!error && huge)
		error = for_each_unheld(tracker, region->start, region->stop, arm_huge);
	if (error)
		*failure = (struct dt_failure){"PAGEMAP_SCAN", region->start, region->stop};
	return error;
}

int dt_tracker_add(struct dt_tracker *tracker, uint64_t start, uint64_t stop, uint32_t page_shift, uint32_t flags,
		   uint64_t *region_ret, struct dt_failure *failure)
{
	struct dt_region like = {.start = start, .stop = stop, .page_shift = page_shift, .flags = flags & DT_SPARSE};
	struct dt_region *other;
	int error = dt_enter(tracker);
	if (error)
		return error;
	dt_find_losses(tracker, start, stop); // before anything is registered there anew
	for_each_touching(other, tracker, start, stop)
		if (!(other->flags & DT_LOST) && (other->page_shift != page_shift || other->flags != like.flags))
			return dt_leave(tracker, -DT_EMIXED);

	*failure = (struct dt_failure){"mmap", start, stop};
	struct dt_region *region;
	error = new_region(tracker, &like, &region);
	if (error)
		return dt_leave(tracker, error);
	error = acquire(tracker, region, failure);
	if (error) {
		for_each_unheld(tracker, start, stop, release);
		free_region(tracker, region);
		return dt_leave(tracker, error);
	}
	insert(tracker, region);
	*region_ret = region->id;
	return dt_leave(tracker, 0);
}

int dt_tracker_remove(struct dt_tracker *tracker, uint64_t id)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(tracker, id);
	if (!region)
		return dt_leave(tracker, -DT_ECLOSED);
	take_out(tracker, region);
	for_each_unheld(tracker, region->start, region->stop, region->flags & DT_LOST ? release_lost : release);
	free_region(tracker, region);
	return dt_leave(tracker, 0);
}

int dt_tracker_lose(struct dt_tracker *tracker, uint64_t start, uint64_t stop)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region;
	for_each_touching(region, tracker, start, stop)
		lose(tracker, region);
	return dt_leave(tracker, 0);
}

int dt_tracker_lose_region(struct dt_tracker *tracker, uint64_t id)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(tracker, id);
	if (region)
		lose(tracker, region);
	return dt_leave(tracker, region ? 0 : -DT_ECLOSED);
}

int dt_tracker_is_lost(struct dt_tracker *tracker, uint64_t id)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(tracker, id);
	return dt_leave(tracker, region ? !!(region->flags & DT_LOST) : -DT_ECLOSED);
}

uint64_t dt_tracker_generation(struct dt_tracker *tracker)
{
	if (dt_enter(tracker) < 0)
		return 0;
	uint64_t generation = tracker->generation;
	dt_leave(tracker, 0);
	return generation;
}

int dt_tracker_mark(struct dt_tracker *tracker, uint64_t id, uint64_t first, uint64_t last)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	struct dt_region *region = dt_find_region(tracker, id);
	if (!region)
		return dt_leave(tracker, -DT_ECLOSED);
	if (region->flags & DT_LOST)
		return dt_leave(tracker, -DT_ELOST);
	dt_feed(tracker, region->start + (first << region->page_shift), region->start + (last << region->page_shift));
	return dt_leave(tracker, 0);
}

static void free_cursor(struct dt_tracker *tracker, struct dt_cursor *cursor)
{
	for (size_t i = 0; i < tracker->region_count; i++) {
		struct dt_region *region = tracker->regions[i];
		if ((uint32_t)region->id < cursor->pending_room)
			dt_free(cursor->pending[(uint32_t)region->id].words, dt_bits_bytes(dt_region_pages(region)));
	}
	dt_free(cursor->pending, cursor->pending_room * sizeof *cursor->pending);
	*cursor = (struct dt_cursor){0};
}

static int new_cursor(struct dt_tracker *tracker, struct dt_cursor **cursor_ret)
{
	size_t slot = 0;
	while (slot < tracker->cursor_room && tracker->cursors[slot].id)
		slot++;
	int error = dt_grow(&tracker->cursors, &tracker->cursor_room, slot + 1, sizeof *tracker->cursors);
	if (error)
		return error;
	struct dt_cursor *cursor = &tracker->cursors[slot];
	for (size_t i = 0; i < tracker->region_count && !error; i++)
		error = make_pending(cursor, tracker->regions[i]);
	if (error) {
		free_cursor(tracker, cursor);
		return error;
	}
	*cursor_ret = cursor;
	return 0;
}

int dt_cursor_open(struct dt_tracker *tracker, uint64_t *cursor_ret)
{
	struct dt_cursor *cursor;
	int error = dt_enter(tracker);
	if (error)
		return error;
	error = new_cursor(tracker, &cursor);
	for (size_t i = 0; i < tracker->region_count && !error; i++) {
		struct dt_region *region = tracker->regions[i];
		if (region->flags & DT_LOST)
			continue;
		// What was written so far belongs to the older cursors. A failure leaves more to them, not less.
		error = dt_harvest(tracker, region, region->start, region->stop);
		if (error == -EPERM) {
			dt_find_losses(tracker, region->start, region->stop);
			error = 0;
		}
	}
	if (error) {
		free_cursor(tracker, cursor);
		return dt_leave(tracker, error);
	}
	*cursor_ret = cursor->id = ++tracker->next_serial << 32 | (uint64_t)(cursor - tracker->cursors);
	return dt_leave(tracker, 0);
}

int dt_cursor_close(struct dt_tracker *tracker, uint64_t id)
{
	int error = dt_enter(tracker);
	if (error)
		return error;
	long slot = dt_find_cursor(tracker, id);
	if (slot < 0)
		return dt_leave(tracker, (int)slot);
	free_cursor(tracker, &tracker->cursors[slot]);
	return dt_leave(tracker, 0);
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
		.spare_lock = PTHREAD_MUTEX_INITIALIZER,
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
	while (tracker->region_count) { // by hand: a forked child may hold the descriptor open
		struct dt_region *region = tracker->regions[tracker->region_count - 1];
		take_out(tracker, region);
		for_each_unheld(tracker, region->start, region->stop,
				region->flags & DT_LOST ? release_lost : release);
		free_region(tracker, region);
	}
	for (size_t slot = 0; slot < tracker->cursor_room; slot++)
		free_cursor(tracker, &tracker->cursors[slot]);
	close_descriptors(tracker);
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
	while (tracker->spare_epochs) {
		struct dt_epoch *epoch = tracker->spare_epochs;
		tracker->spare_epochs = epoch->next;
		dt_epoch_free(epoch);
	}
	for (int i = 0; i < 2; i++)
		dt_free(tracker->spare[i], tracker->spare_room[i] * sizeof *tracker->spare[i]);
	dt_free(tracker->scratch, tracker->scratch_room * sizeof *tracker->scratch);
	dt_free(tracker->regions, tracker->region_room * sizeof *tracker->regions);
	dt_free(tracker->slots, tracker->slot_room * sizeof *tracker->slots);
	dt_free(tracker->cursors, tracker->cursor_room * sizeof *tracker->cursors);
	dt_free(tracker->vec, DT_VEC * sizeof *tracker->vec);
	dt_free(tracker, sizeof *tracker);
}
