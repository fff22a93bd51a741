// Units by region, and what is kept of them.
#include "history_units.h"

size_t dt_unit_region(struct dt_unit_cursor *cursor, uint64_t *number)
{
	const uint64_t *first_units = cursor->history->first_units;
	while (*number >= first_units[cursor->region + 1])
		cursor->region++;
	*number -= first_units[cursor->region];
	return cursor->region;
}

const uint8_t *dt_state_contents(const void *context, size_t region, struct dt_run bytes)
{
	const struct dt_state *state = context;
	const struct dt_history *history = state->history;
	const struct dt_extent *extent = &history->extents[region];
	uint64_t unit = (extent->offset + bytes.start) / dt_unit_of(history);
	uint32_t slot = dt_tree_find(&history->store, state->tree, history->first_units[region] + unit);
	if (slot == DT_ZEROS)
		return NULL;
	return dt_unit_contents(history, slot, dt_unit_place(history, extent, bytes));
}
