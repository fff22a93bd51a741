// The backend that leaves hot pages open. A page that is written in epoch after epoch costs a fault in each, and
// re-arming it buys nothing: it is left unprotected, which the kernel reports as written, and armed again now and then
// to see whether it still is. Where pages are so scattered, or re-arming single pages so dear, that this costs more
// than it saves, all are armed as ever. It lies on top of another backend, which does the scans.
#pragma once

#include "../core/session.h"

#pragma GCC visibility push(hidden)

// From here on pages that are written in scan after scan are left open, and reported as written without a fault for
// each; to be called before anything is tracked. Not for a session that compares. 0 or -ENOMEM.
int dt_session_adapt(struct dt_session *session);

#pragma GCC visibility pop
