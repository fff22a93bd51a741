// What is different between two states.
#include <errno.h>
#include <string.h>

#include "history.h"
#include "history_units.h"

struct contrast {
	struct dt_unit_cursor difference; // the first, since it is what dt_unit_region takes
	struct dt_changes *changes;
	const struct dt_comparing *how;
};

static void compare_unit(void *context, uint64_t unit, uint32_t a, uint32_t b)
{
	struct contrast *contrast = context;
	const struct dt_history *history = contrast->difference.history;
	size_t region = dt_unit_region(&contrast->difference, &unit);
	const struct dt_extent *extent = &history->extents[region];
	struct dt_run bytes = dt_unit_bytes(history, extent, unit);
	uint64_t place = dt_unit_place(history, extent, bytes);
	const uint8_t *before = a == DT_ZEROS ? history->buffer : dt_unit_contents(history, a, place);
	const uint8_t *after = b == DT_ZEROS ? history->buffer : dt_unit_contents(history, b, place);
	dt_changes_compare(contrast->changes, contrast->how, region, bytes.start, before, after,
			   bytes.stop - bytes.start);
}

static void read_state(const void *context, uint64_t region, uint64_t start, uint64_t stop, uint8_t *out)
{
	const struct dt_state *wanted = context;
	const struct dt_history *history = wanted->history;
	uint64_t unit = dt_unit_of(history);
	for (uint64_t end, offset = history->extents[region].offset; start < stop; out += end - start, start = end) {
		end = start + unit - (offset + start) % unit;
		end = end < stop ? end : stop;
		const uint8_t *contents = dt_state_contents(wanted, region, (struct dt_run){start, end});
		if (contents)
			memcpy(out, contents, end - start);
		else
			memset(out, 0, end - start);
	}
}

int dt_history_diff(struct dt_history *history, uint64_t from, uint64_t to, struct dt_changes *changes,
		    const struct dt_comparing *how)
{
	if (!dt_history_has(history, from) || !dt_history_has(history, to))
		return -EINVAL;
	uint32_t before = history->saved[from].tree, after = history->saved[to].tree;
	const struct dt_state old = {history, before};
	const struct dt_comparing comparing = {
		.gap = how->gap, .limit = how->limit, .read = read_state, .context = &old};
	struct contrast contrast = {{history, 0}, changes, &comparing};
	memset(history->buffer, 0, dt_unit_of(history)); // as contents of zeros
	dt_tree_differ(&history->store, before, after, compare_unit, &contrast);
	return 0;
}
