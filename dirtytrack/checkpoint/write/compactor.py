"""Compaction beside the writer of a chain: when, by which thread, and what became of it."""

from __future__ import annotations

import errno
import functools
from bisect import bisect_left
from collections.abc import Callable

from dirtytrack._lifetime.background import Background
from dirtytrack.checkpoint.store.protocol import Claim, OvertakenError, Store
from dirtytrack.checkpoint.write.compaction import shorten
from dirtytrack.checkpoint.write.compression import Compression
from dirtytrack.checkpoint.write.keep import Keep
from dirtytrack.checkpoint.write.retained import NOTHING
from dirtytrack.errors import ChainError, CheckpointError


class Compactor:
    """Compacts a chain beside its writer, by itself when there are twice as many checkpoints as have to stay.

    Attributes:
        retained: checkpoints that stay all the same.
        has_found_damage: whether a checkpoint of the writer's own turned out not to be readable.
    """

    def __init__(
        self,
        store: Store,
        claim: Claim,
        compression: Compression,
        policy: Keep | None,
        numbers: list[int],
    ) -> None:
        self._store = store
        self._claim = claim
        self._compression = compression
        self._policy = policy or Keep()
        self._keep = policy.newest if policy else None
        self._numbers = numbers  # of the checkpoints that lead to the newest, ascending
        self.retained = NOTHING
        self.has_found_damage = False
        self._failure: Exception | None = None
        self._due = 2 * self._keep if self._keep else None  # after how many checkpoints
        self._thread = Background("dirtytrack compaction")
        self._was_put = False

    def committed(self, number: int) -> None:
        """Is told of every checkpoint that was committed."""
        self._numbers.append(number)
        if self._is_due():
            self._put(self._compact_if_due)

    def start(self) -> None:
        """Begins, when what is under way is done."""
        self._put(functools.partial(self._compact, lay_out=True))

    def wait(self) -> None:
        """Waits until it is done, if it is under way."""
        if self._was_put:  # else the thread need not be woken, which may take 5 ms beside one that computes
            self._thread.drain()

    def start_thread(self) -> None:
        """Starts the thread, which somebody has to `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Waits, and ends the thread."""
        self._thread.stop()

    @property
    def is_current(self) -> bool:
        """Whether this is called by its thread."""
        return self._thread.is_current

    def take_failure(self) -> Exception | None:
        """What went wrong, once."""
        failure, self._failure = self._failure, None  # no call: nobody comes in between
        if isinstance(failure, OvertakenError):
            return failure.told()
        if isinstance(failure, OSError) and not isinstance(failure, CheckpointError):
            message = (
                f"the chain was not compacted: {failure.strerror}. "
                "No checkpoint is lost; make room, and try again"
            )
            told = CheckpointError(failure.errno or errno.EIO, message, failure.filename)
            told.__cause__, failure = failure, told
        elif isinstance(failure, ChainError):
            damage = ChainError(f"the chain was not compacted: {failure}. The next save holds everything")
            damage.__cause__, failure = failure, damage
        return failure

    def _put(self, act: Callable[[], object]) -> None:
        self._was_put = True
        self._thread.put(act)

    def _is_due(self) -> bool:
        return self._due is not None and len(self._numbers) > self._due

    def _compact_if_due(self) -> None:
        if self._is_due():  # where each save holds everything, each would be written twice to be laid out
            self._compact(lay_out=False)

    def _compact(self, *, lay_out: bool) -> None:
        if not self._numbers:
            return
        head = self._numbers[-1]  # the writer's own, which need not be the newest of all branches
        try:
            base = shorten(
                self._store,
                self._claim,
                self._compression,
                self._policy,
                at=head,
                retained=self.retained,
                lay_out=lay_out,
            )
        except Exception as error:
            self._failure = error
            self.has_found_damage |= isinstance(error, ChainError)
            if self._keep:  # not again at once
                self._due = len(self._numbers) + self._keep
        else:
            del self._numbers[: bisect_left(self._numbers, base)]  # in place: the worker may be appending
            if self._keep:
                # Where more stay than that, it need not be done again at once.
                self._due = self._keep + max(self._keep, bisect_left(self._numbers, head) + 1)
