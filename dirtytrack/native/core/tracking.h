// Which memory a session tracks: adding and removing regions, losing them, declaring them written.
#pragma once

#include "session.h"

#pragma GCC visibility push(hidden)

// Tracks the pages [start, stop), both multiples of 1 << page_shift. They are armed and clean when it returns; pages
// shared with other regions keep what was written in them for those. flags: DT_SPARSE, DT_UNLISTED. On failure *failure
// says where, and nothing of the range is left registered that no other region holds. -DT_EMIXED, -DT_EHUGETLB.
int dt_session_add(struct dt_session *session, uint64_t start, uint64_t stop, uint32_t page_shift, uint32_t flags,
		   uint64_t *region_ret, struct dt_failure *failure);
// Forgets a region and unregisters those of its pages that no other region holds. 1: some of them could not be, since
// they are unmapped or another userfaultfd's; dt_session_release_range on each mapping in the range gets at the rest.
int dt_session_remove(struct dt_session *session, uint64_t region);
// Unregisters those of the pages [start, stop), all of one mapping, that no region holds.
int dt_session_release_range(struct dt_session *session, uint64_t start, uint64_t stop);
// 1 if all of [start, stop) is mapped and registered here, 0 if it is not.
int dt_session_holds(struct dt_session *session, uint64_t start, uint64_t stop);
// Marks the regions of all other sessions that touch [start, stop) as lost: the kernel let this one register it, so
// they have it no more, and a scan of theirs would take its writes.
void dt_session_take_from_rivals(struct dt_session *session, uint64_t start, uint64_t stop);
// Marks one region as lost. -DT_ECLOSED: there is no such region.
int dt_session_lose_region(struct dt_session *session, uint64_t region);
// 1 if the region is lost, 0 if it is not. -DT_ECLOSED: there is no such region.
int dt_session_is_lost(struct dt_session *session, uint64_t region);
// Declares the bytes [start, stop), addresses, written, to every cursor and every region that has some of them.
int dt_session_mark_range(struct dt_session *session, uint64_t start, uint64_t stop);
// Declares pages [start, stop) of a region written, counted from its first page, to every cursor and to every region
// that shares them. -DT_ECLOSED: there is no such region. -DT_ELOST.
int dt_session_mark(struct dt_session *session, uint64_t region, uint64_t start, uint64_t stop);

// All the memory that a region like this one needs, before the first system call of its own: it is in no table yet. Its
// end. The caller holds the lock.
int dt_make_region(struct dt_session *session, const struct dt_region *like, struct dt_region **region_ret);
void dt_free_region(struct dt_session *session, struct dt_region *region);
// Forgets every region. The caller holds the lock.
void dt_remove_all(struct dt_session *session);

#pragma GCC visibility pop
