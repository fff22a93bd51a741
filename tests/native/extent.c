// The bytes of a region on its pages, byte by byte.
#include "base/extent.h"

#include "driver.h"

// Byte i of the region lies offset + i behind the start of the region's first page.
static void try_run(const struct dt_extent *extent, struct dt_run pages)
{
	struct dt_run bytes = dt_extent_bytes(extent, pages);
	check(bytes.start <= bytes.stop && bytes.stop <= extent->nbytes);
	for (uint64_t i = 0; i < extent->nbytes; i++) {
		uint64_t page = (extent->offset + i) / extent->page_size;
		bool is_on_them = pages.start <= page && page < pages.stop;
		check(is_on_them == (bytes.start <= i && i < bytes.stop));
	}
}

void try_extents(uint64_t *random)
{
	const uint64_t size = 1ULL << (1 + draw(random, 4));
	struct dt_extent extent = {
		.address = 1000,
		.nbytes = 1 + draw(random, 5 * size),
		.offset = draw(random, 3 * size), // of a segment it may be more than a page
		.page_size = size,
	};
	uint64_t pages = dt_extent_pages(&extent);
	check(pages == (extent.offset + extent.nbytes - 1) / size + 1);
	for (uint64_t start = 0; start < pages + 2; start++) // beyond it, too
		for (uint64_t stop = start; stop <= pages + 2; stop++)
			try_run(&extent, (struct dt_run){start, stop});
}
