// Pages to bytes.
#include "extent.h"

static uint64_t clip(const struct dt_extent *extent, uint64_t from_page)
{
	uint64_t byte = from_page > extent->offset ? from_page - extent->offset : 0;
	return byte < extent->nbytes ? byte : extent->nbytes;
}

struct dt_run dt_extent_clip(const struct dt_extent *extent, struct dt_run span)
{
	return (struct dt_run){clip(extent, span.start), clip(extent, span.stop)};
}

struct dt_run dt_extent_bytes(const struct dt_extent *extent, struct dt_run pages)
{
	return dt_extent_clip(extent, (struct dt_run){pages.start * extent->page_size, pages.stop * extent->page_size});
}

struct dt_run dt_extent_pages_of(const struct dt_extent *extent, struct dt_run bytes)
{
	return (struct dt_run){(extent->offset + bytes.start) / extent->page_size,
			       (extent->offset + bytes.stop + extent->page_size - 1) / extent->page_size};
}

uint64_t dt_extent_pages(const struct dt_extent *extent)
{
	return (extent->offset + extent->nbytes + extent->page_size - 1) / extent->page_size;
}
