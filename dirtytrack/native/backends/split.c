// The history of a chunk, counted in scans: they are what a split costs, and no clock has to be asked.
#include "split.h"

static bool owes(const struct dt_split *split)
{
	uint64_t any = 0;
	for (size_t i = 0; i < DT_CHUNK_PAGES / 64; i++)
		any |= split->owed[i];
	return any;
}

bool dt_split_owe(struct dt_split *split, const uint64_t *pages)
{
	for (size_t i = 0; i < DT_CHUNK_PAGES / 64; i++)
		split->owed[i] |= pages[i];
	split->owes = owes(split);
	return split->owes;
}

size_t dt_split_owed(struct dt_split *split, size_t first, size_t stop, bool take, struct dt_run *out)
{
	size_t n = 0;
	for (size_t page = first; page < stop; page++) {
		uint64_t bit = 1ULL << page % 64;
		if (!(split->owed[page / 64] & bit))
			continue;
		n = dt_runs_append(out, n, (struct dt_run){page, page + 1});
		if (take)
			split->owed[page / 64] &= ~bit;
	}
	split->owes = owes(split);
	return n;
}

static uint32_t longer(uint32_t wait, struct dt_waits waits)
{
	return wait < waits.most / 2 ? 2 * wait : waits.most;
}

void dt_split_written(struct dt_split *split, struct dt_waits waits, bool whole)
{
	if (split->mapped == DT_ON_HUGE_PAGE && !whole) {
		bool anew = !split->wait || split->quiet >= waits.most;
		split->wait = anew ? waits.first : longer(split->wait, waits);
		split->mapped = DT_SPLIT;
	}
	if (whole)
		split->mapped = DT_ON_HUGE_PAGE;
	split->quiet = 0;
}

bool dt_split_quiet(struct dt_split *split)
{
	if (split->quiet < UINT32_MAX)
		split->quiet++;
	return split->mapped == DT_SPLIT && split->quiet == split->wait;
}

bool dt_split_is_cold(const struct dt_split *split)
{
	return split->mapped == DT_SPLIT && split->quiet >= split->wait && (split->kinds == 1 || split->kinds == 2);
}

void dt_split_refused(struct dt_split *split, struct dt_waits waits)
{
	split->wait = longer(split->wait, waits);
	split->quiet = 0;
}
