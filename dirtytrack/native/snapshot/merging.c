// Goes through both from the lowest byte to the highest.
#include "merging.h"

#include <stdbool.h>
#include <string.h>

// How far one diff is merged.
struct place {
	const struct dt_diff *diff;
	size_t change;
	uint64_t done; // bytes of this change
};

// Bytes [start, stop) of a region, from the first that is not merged to the end of the change.
struct head {
	uint64_t region, start, stop;
};

static bool is_at_end(const struct place *place)
{
	return place->change == place->diff->n;
}

static struct head head_of(const struct place *place)
{
	if (is_at_end(place))
		return (struct head){UINT64_MAX, UINT64_MAX, UINT64_MAX};
	const struct dt_change *change = &place->diff->changes[place->change];
	return (struct head){change->region, change->start + place->done, change->stop};
}

static const uint8_t *contents_at(const struct place *place, const uint8_t *contents)
{
	return contents + place->diff->changes[place->change].at + place->done;
}

static void go_on(struct place *place, uint64_t nbytes)
{
	const struct dt_change *change = &place->diff->changes[place->change];
	place->done += nbytes;
	if (place->done == change->stop - change->start) {
		place->change++;
		place->done = 0;
	}
}

// Where the first of two begins, whether both do, and for how many bytes that is so.
struct step {
	uint64_t region, start, nbytes;
	bool has_earlier, has_later;
};

static bool is_before(struct head a, struct head b)
{
	return a.region < b.region || (a.region == b.region && a.start < b.start);
}

static struct step next_step(struct head earlier, struct head later)
{
	bool only_earlier = is_before(earlier, later), only_later = is_before(later, earlier);
	struct head first = only_later ? later : earlier, other = only_later ? earlier : later;
	uint64_t stop = first.stop;
	if (only_earlier || only_later)
		stop = other.region == first.region && other.start < stop ? other.start : stop;
	else
		stop = other.stop < stop ? other.stop : stop;
	return (struct step){first.region, first.start, stop - first.start, !only_later, !only_earlier};
}

static bool follows(const struct step *step, const uint8_t *left, const uint8_t *found,
		    struct dt_conflict *conflict_ret)
{
	if (memcmp(left, found, step->nbytes) == 0)
		return true;
	uint64_t at = 0;
	while (left[at] == found[at])
		at++;
	*conflict_ret = (struct dt_conflict){step->region, step->start + at, left[at], found[at]};
	return false;
}

int dt_merge(struct dt_changes *merged, const struct dt_diff *earlier, const struct dt_diff *later,
	     struct dt_conflict *conflict_ret)
{
	static const struct dt_comparing how = {.gap = 0, .limit = UINT64_MAX};
	struct place first = {earlier, 0, 0}, second = {later, 0, 0};
	bool is_known = !earlier->one_sided && !later->one_sided;
	while (!merged->error && !(is_at_end(&first) && is_at_end(&second))) {
		struct step step = next_step(head_of(&first), head_of(&second));
		const struct place *from = step.has_earlier ? &first : &second, *to = step.has_later ? &second : &first;
		if (step.has_earlier && step.has_later && !later->one_sided &&
		    !follows(&step, contents_at(&first, earlier->after), contents_at(&second, later->before),
			     conflict_ret))
			return 1;
		const uint8_t *after = contents_at(to, to->diff->after);
		const uint8_t *before = is_known ? contents_at(from, from->diff->before) : after;
		(is_known ? dt_changes_compare : dt_changes_add)(merged, &how, step.region, step.start, before, after,
								 step.nbytes);
		if (step.has_earlier)
			go_on(&first, step.nbytes);
		if (step.has_later)
			go_on(&second, step.nbytes);
	}
	return merged->error;
}
