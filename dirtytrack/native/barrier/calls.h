// What can be done with a tracker, as a table of functions: of this library, or of another copy of it in the same
// process, which has the session. A program that was built with one version calls a Python package of another, so what
// is here never changes but at the end of a struct.
#pragma once

#include "cards.h"

#pragma GCC visibility push(hidden)

// Functions are those of the same names, of ranges.h, card_map.h, listing.h and cards.h, but where it says otherwise.
// Their arguments were checked. The cards are the library's whose functions they are.
struct dt_calls {
	// Forgets its ranges, and frees it.
	void (*close)(struct dt_cards *cards);
	// Opens another one on the same session, with a cursor of its own. flags: DT_BITS or DT_BYTES.
	int (*share)(struct dt_cards *cards, size_t card_size, unsigned flags, struct dt_cards **cards_ret);
	// dt_session_stop_threads. -EPERM: the session's opener says whether it does.
	int (*stop_threads)(struct dt_cards *cards, int signal, uint64_t limit_ns);
	int (*add)(struct dt_cards *cards, uint64_t start, uint64_t stop, unsigned flags, uint64_t *first_ret);
	int (*remove)(struct dt_cards *cards, uint64_t start, uint64_t stop);
	int (*replace)(struct dt_cards *cards, uint64_t start, uint64_t stop);
	long (*list)(struct dt_cards *cards, bool lost_only, struct dt_range *ranges, size_t room);
	uint64_t (*count)(struct dt_cards *cards);
	size_t (*map_bytes)(struct dt_cards *cards);
	int (*prepare)(struct dt_cards *cards);
	// verb: 0 or 1, DT_PEEK or DT_COLLECT, as below.
	int64_t (*look)(struct dt_cards *cards, int verb, uint64_t number, uint64_t heard, void *map, size_t bytes);
	int64_t (*look_at)(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, void *map, size_t bytes);
	long (*list_runs)(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, struct dt_range *runs,
			  size_t room);
	long (*list_pages)(struct dt_cards *cards, int verb, uint64_t start, uint64_t stop, void **addresses,
			   size_t room, size_t *page_size);
	int (*mark)(struct dt_cards *cards, uint64_t start, uint64_t bytes);
	long (*unstopped)(struct dt_cards *cards, int32_t *threads, size_t room);
};

// Of trackers on sessions of this library.
extern const struct dt_calls dt_own_calls;

// A tracker's cards on a session, over a cursor that is the tracker's from here on, also when it fails. One of the
// session's users is the tracker's. 0 or -ENOMEM.
int dt_open_cards(struct dt_session *session, uint64_t cursor, size_t card_size, unsigned flags,
		  struct dt_cards **cards_ret);

enum { DT_API_VERSION = 0x64740001 }; // so that nothing else looks like it

// What the opener of a session gives to a native runtime.
struct dt_api {
	uint32_t version; // DT_API_VERSION: that of all below
	uint32_t bytes;   // of this struct: a later one has more
	struct dt_session *session;
	// Opens cards on the session, with a cursor of their own, that hold it. flags: DT_BITS or DT_BYTES.
	int (*open)(struct dt_session *session, size_t card_size, unsigned flags, struct dt_cards **cards_ret);
	struct dt_calls calls;
};

#ifndef DT_NATIVE_ONLY
// The table of a session, which native runtimes may use from here on: nobody is stopped with its lock any more. It is
// good as long as the caller has a reference to the session.
int dt_session_api(struct dt_session *session, struct dt_api *api_ret);
#endif

#pragma GCC visibility pop
