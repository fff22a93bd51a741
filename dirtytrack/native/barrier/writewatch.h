// Windows' GetWriteWatch: the written pages of a range of addresses, as many as there is room for.
#pragma once

#include "../core/epoch.h"

#pragma GCC visibility push(hidden)

// Lists the addresses of the pages of [start, stop) that the cursor has pending, ascending, at most *count; *count: how
// many they are. reset: these are re-armed, and in the epoch for the caller
// to settle, and no others are. *granularity: bytes of a page. Without
// addresses (NULL) a reset forgets all of them. -DT_EUNTRACKED: some of the pages are in no region, or in a lost one.
// -DT_EMIXED: they are of several sizes.
int dt_session_write_watch(struct dt_session *session, uint64_t cursor, uint64_t start, uint64_t stop, int reset,
			   uint64_t *addresses, uint64_t *count, uint64_t *granularity, struct dt_epoch *epoch);

#pragma GCC visibility pop
