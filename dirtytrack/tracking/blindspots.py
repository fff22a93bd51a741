"""The kinds of change that a way to find written pages can't see."""

from enum import Enum


class BlindSpot(Enum):
    """A kind of change to tracked memory that is not reported; ``docs/guarantees.md`` has the remedies."""

    DMA = "DMA into pinned pages (io_uring registered buffers, O_DIRECT in flight)"
    OTHER_MAPPING = "stores through another mapping or process"
    FILE_WRITES = "write(2) to the file behind it"
    HOLE_PUNCHING = "hole punching and truncation of what is behind it"
    DROPPED_PAGES = "pages dropped with MADV_DONTNEED"
    UNDONE_STORES = "stores undone, or repeated, before the next collect"
