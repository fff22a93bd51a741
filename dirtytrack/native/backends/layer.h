// A backend on top of another one, which is the first member of its state: what it leaves to that.
#pragma once

#include "../core/backend.h"

#pragma GCC visibility push(hidden)

// The one below.
static inline struct dt_backend *dt_below(const struct dt_backend *backend)
{
	return backend->state;
}

int dt_layer_arm_huge(struct dt_backend *backend, uint64_t start, uint64_t stop);
int dt_layer_arm_first(struct dt_backend *backend, uint64_t start, uint64_t stop);
void dt_layer_disarm(struct dt_backend *backend, uint64_t start, uint64_t stop);
bool dt_layer_still_ours(struct dt_backend *backend, uint64_t start, uint64_t stop);
bool dt_layer_still_ours_after_scan(struct dt_backend *backend, uint64_t start, uint64_t stop);
void dt_layer_read(struct dt_backend *backend, bool begins);

#pragma GCC visibility pop
