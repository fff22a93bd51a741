// The way from what memory is to a state.
#include <errno.h>

#include "../core/access.h"
#include "../core/tracking.h"
#include "history.h"
#include "history_units.h"
#include "rewrite.h"

static void plan_unit(void *context, uint64_t unit, uint32_t a, uint32_t b)
{
	struct dt_history *history = ((struct dt_unit_cursor *)context)->history;
	size_t region = dt_unit_region(context, &unit);
	uint64_t page = unit / dt_units_in_page(history, &history->extents[region]);
	(void)a, (void)b;
	dt_bits_set(&history->written[region], page, page + 1);
}

// Lists in the history's entries and runs the pages to write to bring memory, with the open pages of a peek, to a
// state. Their number.
static uint64_t plan(struct dt_history *history, uint64_t state, const struct dt_epoch *open)
{
	struct dt_run *end = history->runs;
	uint64_t planned = 0;
	for (size_t i = 0; i < history->n; i++) {
		const struct dt_entry *entry = &open->buffers.entries[i];
		const struct dt_run *run = open->buffers.runs + entry->first_run;
		for (size_t left = entry->run_count; left; left--, run++)
			dt_bits_set(&history->written[i], run->start, run->stop);
	}
	dt_tree_differ(&history->store, history->tree, history->saved[state].tree, plan_unit,
		       &(struct dt_unit_cursor){history, 0});
	for (size_t i = 0; i < history->n; i++) {
		struct dt_bits *written = &history->written[i];
		struct dt_entry *entry = &history->entries[i];
		*entry = (struct dt_entry){
			.region = open->buffers.entries[i].region,
			.first_run = (uint64_t)(end - history->runs),
		};
		if (written->low >= written->high) // as of most, where there are many
			continue;
		uint64_t pages = dt_extent_pages(&history->extents[i]);
		entry->run_count = dt_bits_runs(written, 0, pages, end);
		entry->pages = dt_runs_count(end, entry->run_count);
		dt_bits_clear(written, 0, pages);
		planned += entry->pages;
		end += entry->run_count;
	}
	return planned;
}

// Some of the planned pages may be those of the state already, and the tree is not: all of them count as written.
static void mark_planned(const struct dt_history *history, struct dt_session *session)
{
	for (size_t i = 0; i < history->n; i++) {
		const struct dt_run *run = history->runs + history->entries[i].first_run;
		for (uint64_t left = history->entries[i].run_count; left; left--, run++)
			dt_session_mark(session, history->extents[i].region, run->start, run->stop);
	}
}

int dt_history_restore(struct dt_history *history, struct dt_session *session, uint64_t cursor,
		       const struct dt_slice *slices, uint64_t state, struct dt_epoch *open, struct dt_epoch *taken,
		       uint64_t *pages_ret)
{
	int error = dt_history_has(history, state) ? 0 : -EINVAL;
	if (!error)
		error = dt_collect(session, cursor, DT_PEEK, slices, history->n, open);
	if (error)
		return error;
	*pages_ret = plan(history, state, open);
	error = dt_check_entries(session, history->maps, true, history->extents, history->n, history->entries,
				 history->runs, &taken->failure);
	if (error)
		return error;
	uint32_t tree = history->saved[state].tree;
	const struct dt_rewrite rewrite = {
		.slices = slices,
		.apart = history->apart,
		.extents = history->extents,
		.n = history->n,
		.entries = history->entries,
		.runs = history->runs,
		.armed = true,
		.contents = dt_state_contents,
		.context = &(struct dt_state){history, tree},
	};
	error = dt_rewrite(session, cursor, &rewrite, taken);
	if (error) {
		mark_planned(history, session);
		return error;
	}
	dt_tree_share(&history->store, tree);
	dt_tree_drop(&history->store, history->tree);
	history->tree = tree;
	history->current = state;
	return 0;
}
