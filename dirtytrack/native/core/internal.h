// What the sources of the session share.
#pragma once

#include "../kernel/kernel.h"
#include "session.h"

struct dt_region {
	uint64_t id;
	uint64_t start; // addresses of whole pages
	uint64_t stop;
	uint64_t reach; // the highest stop of this region and those before it in address order
	uint32_t page_shift;
	uint32_t flags;
};

// Clean pages and their contents, as a collect of the cursor left them.
struct dt_samples {
	struct dt_sample *samples;
	uint8_t *copies; // a page for each
	size_t count, room, copy_room;
};

struct dt_cursor {
	uint64_t id; // 0: the slot is free
	uint64_t epochs;
	struct dt_bits *pending; // by region slot: pages found, and not yet given to this cursor
	struct dt_bits *assumed; // those of them that were not seen to be written, if the session is adaptive
	size_t pending_room, assumed_room;
	struct dt_samples samples;
};

enum dt_scan_mode {
	DT_LOOK,    // arm nothing
	DT_ARM,     // arm what is found, but for what an adaptive session leaves open
	DT_ARM_ALL, // arm everything
};

// How written pages are found. Addresses in, addresses out; a backend knows nothing of regions and cursors.
struct dt_backend {
	const char *call; // what a scan does, for messages
	// Makes the state of its own that a session needs, and frees it, also where the former failed. NULL: none.
	int (*open)(struct dt_session *session);
	void (*free)(struct dt_session *session);
	// Makes [start, stop) trackable. *huge_ret: whether hugetlb memory is in it.
	int (*add)(struct dt_session *session, uint64_t start, uint64_t stop, bool *huge_ret,
		   struct dt_failure *failure);
	// Undoes add, also where it failed half-way. Fails, and does nothing, where others have taken a part.
	int (*remove)(struct dt_session *session, uint64_t start, uint64_t stop);
	// Arms hugetlb memory that nobody else holds.
	int (*arm_huge)(struct dt_session *session, uint64_t start, uint64_t stop);
	// Lists the written pages of a span, by address; out has room for every other page.
	long (*scan)(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop,
		     enum dt_scan_mode mode, struct dt_run *out);
	// After a scan: whether [start, stop) is still mapped and still ours.
	bool (*verify)(struct dt_session *session, uint64_t start, uint64_t stop);
	// The same without a scan before it.
	bool (*check)(struct dt_session *session, uint64_t start, uint64_t stop);
	// Copies what the last arming scan saw there. NULL: a copy of the memory is as good, since every later store is
	// found by the next scan.
	void (*contents)(struct dt_session *session, uint64_t start, uint64_t bytes, uint8_t *to);
};

extern const struct dt_backend dt_backend_wp_async, dt_backend_adaptive, dt_backend_compare;

enum {
	DT_VEC = 512, // PAGEMAP_SCAN's walk_end is exact up to 512 regions a call
	DT_SPARE_BUFFERS = 2,
};

struct dt_session {
	pthread_mutex_t lock;
	uint64_t address_space;
	const struct dt_backend *backend;
	int userfaultfd;
	int pagemap;
	int blind_to_holes;
	struct dt_compare *compare;
	struct dt_adaptive *adaptive;
	struct dt_run *assumed; // by the last scan: found because they were open
	size_t assumed_count, assumed_room;
	bool closed;
	uint32_t references; // the opener and every epoch; atomic
	uint32_t page_shift;
	uint64_t generation;
	uint64_t next_serial;

	struct dt_region **regions; // by address
	size_t region_count, region_room, lost_count;
	struct dt_region **slots; // by the low half of their identifier
	size_t slot_room, first_free_slot;
	struct dt_cursor *cursors; // likewise
	size_t cursor_room;
	uint64_t worst_runs; // an epoch of everything has at most so many

	struct dt_run *scratch; // where the scans of add and cursor_open go
	size_t scratch_room;
	struct dt_run *spare[2]; // run lists on their way through the second scan
	size_t spare_room[2];
	struct dt_page_region *vec;

	struct dt_epoch_buffers spare_buffers[DT_SPARE_BUFFERS];

	double verified_share; // see dt_session_verify
	bool count_only;
	uint64_t random;
	uint8_t *page_buffer;
	struct dt_run *missed;
	size_t missed_count, missed_room;
};

// Locks the session for a call; the checks come first, without the lock: a forked child must not touch it.
int dt_enter(struct dt_session *session);
int dt_leave(struct dt_session *session, int result);

struct dt_region *dt_find_region(const struct dt_session *session, uint64_t id);
// The slot of a cursor, or -DT_ECLOSED.
long dt_find_cursor(const struct dt_session *session, uint64_t id);
uint64_t dt_region_pages(const struct dt_region *region);
// What a cursor has coming from a region.
struct dt_bits *dt_pending(const struct dt_session *session, size_t cursor_slot, const struct dt_region *region);
// The index of the first region that may touch addresses from start on; later ones may still lie below it.
size_t dt_first_touching(const struct dt_session *session, uint64_t start);
// The regions that touch addresses [from, to).
#define for_each_touching(region, session, from, to)                                              \
	for (size_t index = dt_first_touching(session, from);                                     \
	     index < (session)->region_count && (session)->regions[index]->start < (to); index++) \
		if (((region) = (session)->regions[index])->stop > (from))

// Gives a cursor a bitmap for a region.
int dt_make_pending(const struct dt_session *session, struct dt_cursor *cursor, const struct dt_region *region);
// Frees it.
void dt_free_pending(struct dt_cursor *cursor, const struct dt_region *region);
// What of a region the cursor takes for written only because it was open; NULL if the session is not adaptive.
struct dt_bits *dt_assumed(const struct dt_session *session, size_t cursor_slot, const struct dt_region *region);
// Sets the bits of a region's pages that are in address runs.
void dt_set_runs(struct dt_bits *bits, const struct dt_region *region, const struct dt_run *runs, size_t n);
// Adds the pages of address runs to what one cursor has coming from a region.
void dt_feed_cursor(struct dt_session *session, struct dt_region *region, const struct dt_run *runs, size_t n,
		    size_t slot);
// The same for all cursors but the one in the slot except (-1: none).
void dt_feed_region(struct dt_session *session, struct dt_region *region, const struct dt_run *runs, size_t n,
		    long except);
// Adds [start, stop) to what every cursor has coming, for every region that touches it.
void dt_feed(struct dt_session *session, uint64_t start, uint64_t stop);
// Tells every cursor which pages the last scan found only because they are open. A bit too many does no harm: it counts
// for pages that an epoch reports.
void dt_feed_assumed(struct dt_session *session, uint64_t start, uint64_t stop);
// Lists what of an epoch is assumed, and takes it from the cursor unless it was a peek; 0 or -ENOMEM.
int dt_list_assumed(struct dt_session *session, struct dt_epoch *epoch, size_t slot, int verb);
// Undoes that.
void dt_give_back_assumed(struct dt_session *session, const struct dt_epoch *epoch, size_t slot);
// Flags those of the regions that touch [start, stop) whose memory is no longer ours.
void dt_find_losses(struct dt_session *session, uint64_t start, uint64_t stop);
// Scans and re-arms [start, stop), which is of one kind; what is found goes to every region and cursor.
int dt_harvest(struct dt_session *session, const struct dt_region *kind, uint64_t start, uint64_t stop);
// Forgets every region, and every cursor.
void dt_remove_all(struct dt_session *session);
void dt_close_cursors(struct dt_session *session);
// Adds a reference.
void dt_session_hold(struct dt_session *session);
// Drops one; the last one frees the session.
void dt_session_drop(struct dt_session *session);
// Where an address of a region is: its offset from the region's first page. -DT_ECLOSED: there is no such region.
int dt_session_locate(struct dt_session *session, uint64_t region, uint64_t address, uint64_t *offset,
		      uint32_t *page_shift);
// dt_epoch_release for an epoch inside of something else.
void dt_epoch_end(struct dt_epoch *epoch);
// The shadow check at the end of a collect of these slices (NULL: of everything): 0, -DT_EMISSED or -ENOMEM.
int dt_check_samples(struct dt_session *session, size_t slot, const struct dt_epoch *epoch,
		     const struct dt_slice *slices, size_t n);
void dt_free_samples(struct dt_samples *samples, uint32_t page_shift);
void dt_free_spare_buffers(struct dt_session *session);

// Grows *array (of size bytes an item) to hold at least wanted items; the new ones are zero. 0 or -ENOMEM.
int dt_grow(void *array, size_t *room, size_t wanted, size_t size);
// The same for an array whose contents do not matter.
int dt_make_room(void *array, size_t *room, size_t wanted, size_t size);
