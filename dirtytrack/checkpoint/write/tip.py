"""The end of a chain where it is written: how a file that goes on from there begins, and gets its name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from dirtytrack.checkpoint.format.description import Description
from dirtytrack.checkpoint.format.new_table import NewTable
from dirtytrack.checkpoint.format.structures import BLOCK, Header, Kind
from dirtytrack.checkpoint.store.protocol import Claim, Condition, Store
from dirtytrack.checkpoint.write.checkpoint_writer import CheckpointWriter
from dirtytrack.checkpoint.write.compression import Compression, Encoder
from dirtytrack.checkpoint.write.footing import Footing
from dirtytrack.checkpoint.write.job import Job
from dirtytrack.checkpoint.write.origin import Origin
from dirtytrack.checkpoint.write.table import Table, new_table_name

_THREADS = min(4, len(os.sched_getaffinity(0)))  # that compress a base


class Begun(NamedTuple):
    """A file that is being written.

    Attributes:
        job: what it is of.
        writer: writes it.
        table: the name of its table of regions.
    """

    job: Job
    writer: CheckpointWriter
    table: str


class Published(NamedTuple):
    """A file that has its name.

    Attributes:
        header: of it.
        begun: what it was before.
        nbytes: of it, holes aside.
    """

    header: Header
    begun: Begun
    nbytes: int


class Tip:
    """The checkpoint last committed, by its writer; deltas go on from it.

    Attributes:
        table: of the regions.
        footing: what a delta stands on.
    """

    def __init__(
        self, origin: Origin, table: Table, store: Store, claim: Claim, compression: Compression
    ) -> None:
        self.table, self._name = table, origin.table
        self.footing = Footing(store, origin.files)
        self._parent = origin.parent
        self._chain = origin.chain
        self._store = store
        self._claim = claim
        self._compression = compression
        self._prospects = compression.prospects()  # of deltas

    def begin(self, job: Job, encoder: Encoder) -> Begun:
        """Begins the file of a job with its `encoder`. Nothing changes but the hashes of another table.

        Raises:
            OSError: the file can't be made.
        """
        name, new_table = self._table_of(job)
        header = Header(job.kind, self._chain, job.id, self._parent, job.file, job.number)
        writer = CheckpointWriter(
            self._store,
            header,
            job.table.layouts,
            encoder,
            job.table.blocks * BLOCK,
            linear=job.linear,
            hashes=job.table.hashes,
            new_table=new_table,
        )
        return Begun(job, writer, name)

    def encoder(self, job: Job) -> Encoder:
        """What encodes the segments of its file, by what is known now."""
        if job.kind is Kind.BASE:  # whoever saves one waits for it
            return self._compression.encoder(threads=_THREADS)
        nbytes = None if job.captured is None else job.captured.blocks * BLOCK
        return self._compression.encoder(self._prospects, nbytes=nbytes)

    def plan(self, begun: Begun) -> tuple[Kind, Description, Condition]:
        """What a file is to be when it is complete, what it says of itself, and what has to hold then."""
        job, writer, name = begun
        # A delta that has everything needs no parent.
        whole = len(job.captures) == 1 and writer.blocks == job.table.blocks and writer.can_be_base
        kind = Kind.BASE if whole else job.kind

        def find_out() -> None:
            self._claim.renew()
            if kind is Kind.DELTA:
                self.footing.check()

        names = self.footing.names if kind is Kind.DELTA else ()
        return kind, job.describe(name), Condition(self._claim, names, find_out)

    def publish(self, begun: Begun, batches: Sequence[Any] = ()) -> Published:
        """Completes a file, with batches that it does not have yet, and gives it its name.

        Raises:
            MemoryError, OSError: as `CheckpointWriter.commit`.
        """
        kind, description, condition = self.plan(begun)
        files = self.footing.files if kind is Kind.DELTA else []
        header, nbytes = begun.writer.commit(kind, description, condition, files, batches=batches)
        return Published(header, begun, nbytes)

    def advance(self, published: Published) -> None:
        """What comes next is a delta to that, even if this is not done to its end."""
        header, (job, writer, name), _ = published
        self._parent, self.table, self._name = header.checkpoint, job.table, name
        self.footing.committed(header.name)
        job.table.hashes.commit()
        if not writer.compresses:
            self._prospects.pass_over(writer.plain)

    def _table_of(self, job: Job) -> tuple[str, NewTable | None]:
        # The name of the table in its file, and what that is to say of it.
        if job.kind is Kind.BASE:
            return new_table_name(), None
        if job.table is self.table:
            return self._name, None
        new_table = job.table.follow(self.table)
        changes = new_table.changes(self.table.layouts)
        return (new_table_name(), new_table) if changes else (self._name, None)
