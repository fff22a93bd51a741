"""What a tracker has to report, said in the plainest way: a set of pages for every cursor and region.

Nothing here uses dirtytrack. Pages are numbered from the start of the memory; regions and cursors are any
hashable objects.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

Wanted = dict[Hashable, set[int]]


class Oracle:
    """The memory as it should be, which pages each cursor must be told of, and the copy that each keeps.

    Attributes:
        truth: the contents of the memory.
        page_size: bytes in a page.
        regions: the byte range [start, stop) of every tracked region.
    """

    def __init__(self, nbytes: int, page_size: int) -> None:
        self.truth = bytearray(nbytes)
        self.page_size = page_size
        self.regions: dict[Hashable, tuple[int, int]] = {}
        self._due: dict[Hashable, Wanted] = {}
        self._copies: dict[tuple[Hashable, Hashable], bytearray] = {}

    def pages(self, start: int, stop: int) -> range:
        """The pages that bytes [start, stop) of the memory touch."""
        return range(start // self.page_size, -(-stop // self.page_size))

    def open(self, cursor: Hashable) -> None:
        """A new cursor: it has seen everything that was written so far."""
        self._due[cursor] = {}
        for region in self.regions:
            self._begin(cursor, region)

    def close(self, cursor: Hashable) -> None:
        """The cursor is gone, with all it had coming."""
        del self._due[cursor]

    def track(self, region: Hashable, start: int, stop: int) -> None:
        """A new region: nothing in it counts as written."""
        self.regions[region] = start, stop
        for cursor in self._due:
            self._begin(cursor, region)

    def untrack(self, region: Hashable) -> None:
        """The region is gone, for every cursor."""
        del self.regions[region]
        for due in self._due.values():
            del due[region]

    def store(self, start: int, data: bytes) -> None:
        """The memory has *data* at *start* now, and whoever tracks one of its pages must be told."""
        self.truth[start : start + len(data)] = data
        self.dirty(self.pages(start, start + len(data)))

    def dirty(self, pages: range) -> None:
        """Every cursor must be told of these pages, for every region that touches them."""
        for region, (start, stop) in self.regions.items():
            mine = self.pages(start, stop)
            for due in self._due.values():
                due[region].update(range(max(pages.start, mine.start), min(pages.stop, mine.stop)))

    def expected(self, cursor: Hashable, asked: Wanted) -> Wanted:
        """What an epoch of the pages *asked* for has to hold: exactly this."""
        return {region: self._due[cursor][region] & pages for region, pages in asked.items()}

    def allows(self, cursor: Hashable, asked: Wanted, found: Wanted) -> bool:
        """Whether an epoch of the pages *asked* for may hold *found*."""
        return found == self.expected(cursor, asked)

    def allows_peek(self, cursor: Hashable, asked: Wanted, found: Wanted) -> bool:
        """The same for a look that changes nothing."""
        return self.allows(cursor, asked, found)

    def told(self, cursor: Hashable, pages: Wanted) -> None:
        """The cursor has been given these pages."""
        for region, some in pages.items():
            self._due[cursor][region] -= some

    def aborted(self, cursor: Hashable, pages: Wanted) -> None:
        """It gave them back; what was closed or untracked meanwhile is skipped."""
        for region, some in pages.items():
            if cursor in self._due and region in self.regions:
                self._due[cursor][region] |= some

    def copy(self, cursor: Hashable, region: Hashable, start: int, data: bytes) -> None:
        """The cursor copies *data*, found at byte *start* of the region."""
        self._copies[cursor, region][start : start + len(data)] = data

    def copy_truth(self, cursor: Hashable, pages: Wanted) -> None:
        """The cursor copies these pages wherever it can still take them right: what it is told to forget."""
        for region, some in pages.items():
            first, last = self.regions[region]
            for page in some:
                start, stop = max(page * self.page_size, first), min((page + 1) * self.page_size, last)
                self.copy(cursor, region, start - first, self.truth[start:stop])

    def stale(self, cursor: Hashable, regions: Iterable[Hashable]) -> Wanted:
        """Pages on which a cursor's copy differs from the memory although it will not be told of them."""
        found: Wanted = {}
        for region in regions:
            start, stop = self.regions[region]
            copy, truth = self._copies[cursor, region], self.truth[start:stop]
            if copy != truth:
                for page in set(self.pages(start, stop)) - self._due[cursor][region]:
                    piece = slice(max(page * self.page_size - start, 0), (page + 1) * self.page_size - start)
                    if copy[piece] != truth[piece]:
                        found.setdefault(region, set()).add(page)
        return found

    def _begin(self, cursor: Hashable, region: Hashable) -> None:
        start, stop = self.regions[region]
        self._due[cursor][region] = set()
        self._copies[cursor, region] = self.truth[start:stop]


class ContentOracle(Oracle):
    """The same for a tracker that compares contents: a store shows at the next look, unless it was undone."""

    def __init__(self, nbytes: int, page_size: int) -> None:
        super().__init__(nbytes, page_size)
        self._seen = bytearray(nbytes)
        self._maybe: dict[tuple[Hashable, Hashable], set[int]] = {}

    def open(self, cursor: Hashable) -> None:
        """It begins with a look at everything."""
        self._look(page for start, stop in self.regions.values() for page in self.pages(start, stop))
        super().open(cursor)

    def track(self, region: Hashable, start: int, stop: int) -> None:
        """It begins with a look at the region, which others may share."""
        self._look(self.pages(start, stop))
        super().track(region, start, stop)

    def store(self, start: int, data: bytes) -> None:
        """The memory has *data* at *start* now; nobody knows yet."""
        self.truth[start : start + len(data)] = data

    def expected(self, cursor: Hashable, asked: Wanted) -> Wanted:
        """What was due before, and what a look finds now."""
        self._look(page for pages in asked.values() for page in pages)
        return super().expected(cursor, asked)

    def allows(self, cursor: Hashable, asked: Wanted, found: Wanted) -> bool:
        """A page that a peek has shown may be reported although its store was undone since."""
        return self._fits(cursor, self.expected(cursor, asked), asked, found)

    def allows_peek(self, cursor: Hashable, asked: Wanted, found: Wanted) -> bool:
        """What is due, and what differs; it may be the cursor's from now on, whatever becomes of it."""
        due = super().expected(cursor, asked)
        for region, pages in asked.items():
            due[region] |= {page for page in pages if self._differs(page)}
        fits = self._fits(cursor, due, asked, found)
        for region, pages in found.items():
            self._maybe.setdefault((cursor, region), set()).update(pages)
        return fits

    def _fits(self, cursor: Hashable, due: Wanted, asked: Wanted, found: Wanted) -> bool:
        maybe = {region: self._maybe.get((cursor, region), set()) & asked[region] for region in asked}
        return all(due[region] <= found[region] <= due[region] | maybe[region] for region in asked)

    def stale(self, cursor: Hashable, regions: Iterable[Hashable]) -> Wanted:
        """Not those that the next look will find."""
        found = super().stale(cursor, regions)
        unseen = {region: {p for p in pages if not self._differs(p)} for region, pages in found.items()}
        return {region: pages for region, pages in unseen.items() if pages}

    def _differs(self, page: int) -> bool:
        where = slice(page * self.page_size, (page + 1) * self.page_size)
        return self.truth[where] != self._seen[where]

    def _look(self, pages: Iterable[int]) -> None:
        for page in set(pages):
            if self._differs(page):
                where = slice(page * self.page_size, (page + 1) * self.page_size)
                self._seen[where] = self.truth[where]
                self.dirty(range(page, page + 1))
