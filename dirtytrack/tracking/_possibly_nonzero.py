"""Which parts of memory hold anything at all."""

from __future__ import annotations

from collections.abc import Iterator

from dirtytrack.kernel import mappings
from dirtytrack.kernel.mappings import Kind
from dirtytrack.kernel.pagemap import Category, scan_all
from dirtytrack.tracking.region import Region

_POPULATED = Category.PRESENT | Category.SWAPPED


def possibly_nonzero(region: Region) -> Iterator[tuple[int, int]]:
    """The bytes [start, stop) of a region that may be other than zeros.

    What a sparse one has not populated is not: a look at it would populate it, which counts as a write.
    """
    if not region.sparse:
        yield 0, region.nbytes
        return
    low, high = region.page_range
    for mapping in mappings.overlapping(low, high):
        start, stop = max(low, mapping.start), min(high, mapping.stop)
        pieces = [(start, stop)]
        if mapping.kind is Kind.ANONYMOUS:
            pieces = [piece[:2] for piece in scan_all(start, stop, category_anyof_mask=_POPULATED)]
        for start, stop in pieces:
            yield max(start - region.address, 0), min(stop - region.address, region.nbytes)
