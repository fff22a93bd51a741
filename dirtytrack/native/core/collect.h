// The verbs of a cursor: one scan feeds every cursor, and the cursor that asked is given what it has pending.
#pragma once

#include "epoch.h"

#pragma GCC visibility push(hidden)

// What a cursor does with the pages it finds.
enum dt_verb {
	DT_PEEK,    // report; change nothing
	DT_COLLECT, // report and re-arm
	DT_RESET,   // re-arm and forget
	DT_PROVE,   // collect, and re-arm also what an adaptive session leaves open

	DT_BESIDE = 8, // with any of them: beside the other threads, also in a session that stops them
};

// One verb of a cursor on every region that is listed, if the generation is still the one named. -DT_ESTALE: it is not.
// -DT_ECLOSED: there is no such cursor. -DT_ELOST: a region is lost. -DT_EMISSED: the double check found something. On
// an error nothing is lost: the epoch is empty, and its pages are with the cursor.
int dt_collect_all(struct dt_session *session, uint64_t cursor, int verb, uint64_t generation, struct dt_epoch *epoch);
// The same on n slices: sorted within a region, disjoint, the slices of a region next to each other. The epoch gets an
// entry for each region, in their order. -DT_ECLOSED: there is no such cursor, or no such region.
int dt_collect(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
	       struct dt_epoch *epoch);
// The same as dt_collect for who holds another lock (see dt_enter_within).
int dt_collect_within(const struct dt_lock *outer, struct dt_session *session, uint64_t cursor, int verb,
		      const struct dt_slice *slices, size_t n, struct dt_epoch *epoch);
// Makes room for such a call, so that it allocates nothing as long as no region comes or goes. -DT_ECLOSED, -ENOMEM.
int dt_collect_prepare(const struct dt_lock *outer, struct dt_session *session, const struct dt_slice *slices, size_t n,
		       struct dt_epoch *epoch);
// The same as dt_collect, and if it succeeds in a session that stops threads, act(context) before they go on, whose
// result it returns. Act is called with the session's lock, must take no lock that a stopped thread may hold, and
// should allocate nothing.
int dt_collect_and(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
		   struct dt_epoch *epoch, int (*act)(void *context), void *context);
// The same as dt_collect, for such an act.
int dt_collect_in_act(struct dt_session *session, uint64_t cursor, int verb, const struct dt_slice *slices, size_t n,
		      struct dt_epoch *epoch);

#pragma GCC visibility pop
