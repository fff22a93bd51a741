// Units of a history, which are numbered through all regions: where each lies, and what states have of it.
#pragma once

#include "history.h"

#pragma GCC visibility push(hidden)

// The bytes of a unit.
static inline uint64_t dt_unit_of(const struct dt_history *history)
{
	return history->store.contents.unit;
}

// Where the bytes of a unit lie in a region; its first units may lie before it.
static inline struct dt_run dt_unit_bytes(const struct dt_history *history, const struct dt_extent *extent,
					  uint64_t unit)
{
	uint64_t start = unit * dt_unit_of(history);
	return dt_extent_clip(extent, (struct dt_run){start, start + dt_unit_of(history)});
}

// The same place within the contents that are kept.
static inline uint64_t dt_unit_place(const struct dt_history *history, const struct dt_extent *extent,
				     struct dt_run bytes)
{
	return (extent->offset + bytes.start) % dt_unit_of(history);
}

static inline uint64_t dt_units_in_page(const struct dt_history *history, const struct dt_extent *extent)
{
	return extent->page_size / dt_unit_of(history);
}

// What is kept in a slot, from a place on.
static inline uint8_t *dt_unit_contents(const struct dt_history *history, uint32_t slot, uint64_t place)
{
	return (uint8_t *)dt_pool_at(&history->store.contents, slot) + place;
}

// Goes through units in order.
struct dt_unit_cursor {
	struct dt_history *history;
	size_t region; // of the unit last seen
};

// The region of a unit; its number becomes that in the region.
size_t dt_unit_region(struct dt_unit_cursor *cursor, uint64_t *number);

// What a state has of all bytes.
struct dt_state {
	const struct dt_history *history;
	uint32_t tree;
};

// What it has of bytes that lie on one unit; NULL: zeros. For dt_rewrite, which passes the state.
const uint8_t *dt_state_contents(const void *state, size_t region, struct dt_run bytes);

#pragma GCC visibility pop
