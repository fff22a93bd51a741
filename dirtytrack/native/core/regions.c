// The table of regions.
#include "regions.h"

#include <errno.h>
#include <string.h>

#include "../base/array.h"
#include "../base/memory.h"

static uint32_t slot_of(const struct dt_region *region)
{
	return (uint32_t)region->id;
}

struct dt_region *dt_find_region(const struct dt_regions *regions, uint64_t id)
{
	uint32_t slot = (uint32_t)id;
	struct dt_region *region = slot < regions->slot_room ? regions->slots[slot] : NULL;
	return region && region->id == id ? region : NULL;
}

size_t dt_first_touching(const struct dt_regions *regions, uint64_t start)
{
	size_t low = 0, high = regions->count; // reach never falls, so it can be searched
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (regions->by_address[middle]->reach > start)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

int dt_new_region(struct dt_regions *regions, const struct dt_region *like, uint64_t serial,
		  struct dt_region **region_ret)
{
	size_t slot = regions->first_free_slot;
	while (slot < regions->slot_room && regions->slots[slot])
		slot++;
	int error = dt_grow(&regions->slots, &regions->slot_room, slot + 1, sizeof *regions->slots);
	if (!error)
		error = dt_grow(&regions->by_address, &regions->room, regions->count + 1, sizeof *regions->by_address);
	if (error)
		return error;
	struct dt_region *region = dt_alloc(sizeof *region);
	if (!region)
		return -ENOMEM;
	*region = *like;
	region->id = serial << 32 | slot;
	*region_ret = region;
	return 0;
}

// From the region at an index on, which came or whose predecessor went, up to one that is right already.
static void update_reach(struct dt_regions *regions, size_t from)
{
	uint64_t reach = from ? regions->by_address[from - 1]->reach : 0;
	for (size_t i = from; i < regions->count; i++) {
		struct dt_region *region = regions->by_address[i];
		if (region->stop > reach)
			reach = region->stop;
		if (region->reach == reach)
			break;
		region->reach = reach;
	}
}

// The index by address of the first region that begins behind an address.
static size_t first_behind(const struct dt_regions *regions, uint64_t start)
{
	size_t low = 0, high = regions->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (regions->by_address[middle]->start > start)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

void dt_insert_region(struct dt_regions *regions, struct dt_region *region)
{
	size_t at = first_behind(regions, region->start);
	region->reach = 0;
	memmove(regions->by_address + at + 1, regions->by_address + at,
		(regions->count - at) * sizeof *regions->by_address);
	regions->by_address[at] = region;
	regions->count++;
	regions->slots[slot_of(region)] = region;
	regions->first_free_slot = slot_of(region) + (size_t)1;
	regions->generation += !(region->flags & DT_UNLISTED);
	update_reach(regions, at);
}

void dt_take_out_region(struct dt_regions *regions, struct dt_region *region)
{
	size_t at = first_behind(regions, region->start);
	do
		at--;
	while (regions->by_address[at] != region);
	regions->count--;
	memmove(regions->by_address + at, regions->by_address + at + 1,
		(regions->count - at) * sizeof *regions->by_address);
	regions->slots[slot_of(region)] = NULL;
	if (slot_of(region) < regions->first_free_slot)
		regions->first_free_slot = slot_of(region);
	regions->lost_count -= !!(region->flags & DT_LOST);
	regions->generation += !(region->flags & DT_UNLISTED);
	update_reach(regions, at);
}

void dt_lose_region(struct dt_regions *regions, struct dt_region *region)
{
	if (region->flags & DT_LOST)
		return;
	region->flags |= DT_LOST;
	regions->lost_count++;
}

void dt_recover_region(struct dt_regions *regions, struct dt_region *region)
{
	if (!(region->flags & DT_LOST))
		return;
	region->flags &= ~(uint32_t)DT_LOST;
	regions->lost_count--;
}

void dt_free_regions(struct dt_regions *regions)
{
	dt_free(regions->by_address, regions->room * sizeof *regions->by_address);
	dt_free(regions->slots, regions->slot_room * sizeof *regions->slots);
	regions->by_address = regions->slots = NULL;
	regions->room = regions->slot_room = 0;
}
