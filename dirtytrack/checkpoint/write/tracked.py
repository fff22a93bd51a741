"""The regions that the saves of a Checkpointer are of, which may be exchanged between two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint.format.layout import Layout, stored
from dirtytrack.checkpoint.read.populated import is_hollow, populated
from dirtytrack.checkpoint.write.capture import Capturer
from dirtytrack.checkpoint.write.holdings import Holdings
from dirtytrack.checkpoint.write.options import Options
from dirtytrack.checkpoint.write.pipeline import Pipeline
from dirtytrack.checkpoint.write.table import Table, in_order_of
from dirtytrack.tracking import Consumer, Region, Session, open_consumer


class Tracked:
    """What is tracked, and the one cursor that is told of writes to it, whatever it is exchanged for.

    All of it may be done in the middle of one another, by the handler of a signal.

    Attributes:
        session: which tracks it.
        holdings: the memory of each name.
    """

    def __init__(self, memories: Mapping[str, object], options: Options, undo: Undo) -> None:
        """Tracks memory; *undo* ends that.

        Raises:
            As `Holdings.track`.
        """
        self._options = options
        self.holdings = Holdings(memories)
        self._held = [self.holdings]  # those that are not released: two or more while they are exchanged
        undo.callback(self._release)
        self.session: Session = self.holdings.track(options.session)

    def listen(self, name: str, table: Table, committed: Table, undo: Undo) -> Consumer:
        """Opens the cursor, for the regions of a table: what is written from here on is its own.

        So is all that is not known to be *committed*.
        """
        regions = self._in_order(self.holdings, table.layouts)
        self._consumer = open_consumer(self.session, name, regions, undo)
        for region in regions:
            if not committed.knows(region):
                _feed_all(self._consumer, region)
        return self._consumer

    def exchange(
        self,
        pipeline: Pipeline,
        change: Callable[[Mapping[str, object]], Mapping[str, object]],
        anew: frozenset[str],
    ) -> None:
        """Has the saves from here on be of other memory.

        Args:
            pipeline: saves it.
            change: makes of the memory of each name that which it is to be. What is tracked already stays so.
            anew: names whose memory is to be tracked anew all the same.

        Raises:
            CheckpointError: an earlier save has failed.
            Others: as `Holdings.track`. Nothing was exchanged.
        """
        while True:
            before = self.holdings
            after = Holdings(change(before.memories))
            self._held.append(after)
            try:
                after.track(self.session, before, anew)
                capturer = self._capturer(pipeline.capturer.table, before, after)
                pipeline.settle()
            except BaseException:
                self._let_go(after, before)
                raise
            if self.holdings is before:  # no call from here on: nobody comes in between
                self.holdings, pipeline.capturer = after, capturer
                break
            self._let_go(after, before)
        self._let_go(before, after)

    def _capturer(self, table: Table, before: Holdings, after: Holdings) -> Capturer:
        if not table.is_of(after.layouts, after.regions):
            layouts = in_order_of(table.layouts, after.layouts)
            table = Table(layouts, after.regions, self._options, table)
        consumer = self._consumer.over(self._in_order(after, table.layouts))
        for layout in stored(table.layouts):
            if after.is_new(layout.name, before):  # whatever it holds may differ from what was saved
                _feed_all(consumer, after.regions[layout.name])
        return Capturer(consumer, table)

    @staticmethod
    def _in_order(holdings: Holdings, layouts: tuple[Layout, ...]) -> tuple[Region, ...]:
        return tuple(holdings.regions[layout.name] for layout in stored(layouts))

    def _let_go(self, one: Holdings, other: Holdings) -> None:
        one.release(other)
        if one in self._held:
            self._held.remove(one)

    def _release(self) -> None:
        for one in reversed(self._held):
            one.release()


def _feed_all(consumer: Consumer, region: Region) -> None:
    # What is not populated of sparse memory is left so: a checkpoint has zeros there, from the first one on.
    runs = None
    if region.sparse and is_hollow(region.address, region.nbytes):
        offset, size = region.geometry.offset, region.page_size
        spans = populated(region.address, region.nbytes)
        runs = [((offset + start) // size, -(-(offset + stop) // size)) for start, stop in spans]
    consumer.feed(region, runs)
