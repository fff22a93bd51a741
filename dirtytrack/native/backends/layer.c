// Calls that are passed on.
#include "layer.h"

int dt_layer_arm_huge(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	return dt_below(backend)->ops->arm_huge(dt_below(backend), start, stop);
}

int dt_layer_arm_first(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	return dt_below(backend)->ops->arm_first(dt_below(backend), start, stop);
}

void dt_layer_disarm(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	dt_below(backend)->ops->disarm(dt_below(backend), start, stop);
}

bool dt_layer_still_ours(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	return dt_below(backend)->ops->still_ours(dt_below(backend), start, stop);
}

bool dt_layer_still_ours_after_scan(struct dt_backend *backend, uint64_t start, uint64_t stop)
{
	return dt_below(backend)->ops->still_ours_after_scan(dt_below(backend), start, stop);
}

void dt_layer_read(struct dt_backend *backend, bool begins)
{
	if (dt_below(backend)->ops->read)
		dt_below(backend)->ops->read(dt_below(backend), begins);
}
