"""A writer that is killed again and again, and what every chain that it leaves has to hold.

The parent knows what may be there by a log that reaches it through a pipe: before each save the writer sends
the hash of all of its memory, and after each flush that it has returned.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from _lib.checkpoint.world import DIGEST_BYTES, World, digest, restored
from _lib.support import idle_threads
from dirtytrack import Session
from dirtytrack.checkpoint import Chain, Checkpointer
from dirtytrack.checkpoint.write import compactor

KILLS = int(os.environ.get("DIRTYTRACK_TORTURE_KILLS") or 200)  # more by `make torture`

_MESSAGE = struct.Struct(f"<cQ{DIGEST_BYTES}s")
_BLOCKS = 60
_LIVES = 12  # at most, for one chain
_MESSAGES = 60  # after so many a writer is killed, whatever was waited for
_MOMENT = -0.001, 0.003  # seconds: when to kill after what was waited for; in a quarter of the cases at once
_PATIENCE = 60.0


class Event(Enum):
    """What a writer says."""

    RESUMING = b"r"
    RESUMED = b"R"
    SAVING = b"s"
    FLUSHED = b"f"
    COMPACTING = b"c"
    COMPACTED = b"C"


class Oracle:
    """What a chain may hold.

    Attributes:
        hashes: of the memory at each step that was about to be saved.
        flushed: the last step that is known to be committed; 0: none.
        newest: the step that the chain ended with when it was looked at last; 0: none.
    """

    def __init__(self) -> None:
        self.hashes: dict[int, bytes] = {}
        self.flushed = self.newest = 0

    def learn(self, event: Event, step: int, hashed: bytes) -> None:
        """What a writer has said."""
        if event is Event.SAVING:
            self.hashes[step] = hashed
        elif event is Event.FLUSHED:
            self.flushed = step

    def check(self, path: Path) -> int:
        """Compares every checkpoint of the chain with what was saved, all of it; returns their number."""
        if not any(name.endswith((".base", ".delta")) for name in os.listdir(path)):
            assert self.flushed == 0, f"nothing is there, and step {self.flushed} was flushed"
            return 0
        with Chain(path) as chain:
            assert chain.problems == ()
            for checkpoint in chain:
                sizes = {layout.name: layout.nbytes for layout in checkpoint.regions}
                step = checkpoint.meta["step"]
                assert digest(restored(path, sizes, checkpoint.id)) == self.hashes[step], (
                    f"step {step} differs"
                )
            newest = chain.newest.meta["step"]
            assert newest >= max(self.flushed, self.newest)
            self.newest = newest
            return len(chain)


class Writer:
    """The program that is killed: it resumes the chain, or starts it, and saves until its end."""

    def __init__(self, path: Path, oracle: Oracle, draw: random.Random, compacts: bool, log: int) -> None:
        self._path, self._oracle, self._draw, self._compacts, self._log = path, oracle, draw, compacts, log
        self._step = max(oracle.hashes, default=0)
        self._world = World(_BLOCKS, draw.randrange(1 << 32), draw.randrange(5000))

    def run(self) -> NoReturn:
        """Save without end."""
        draw = self._draw
        with idle_threads(draw.randint(0, 1)), Session() as session, self._said_compactions():
            self._say(Event.RESUMING)
            checkpoints = Checkpointer.open(
                self._path,
                self._world.regions,
                session=session,
                fsync=draw.random() < 0.7,
                compression=draw.choice(["none", "auto", "zstd"]),
                keep=draw.choice([1, 2, 3] if self._compacts else [None, None, 5]),
                staging_bytes=draw.choice([None, 4096, 5 * 4096]),
            )
            self._check_resumed(checkpoints)
            self._say(Event.RESUMED)
            while True:
                self._save(checkpoints)

    def _check_resumed(self, checkpoints: Checkpointer) -> None:
        step = self._oracle.newest
        assert checkpoints.meta == ({"step": step} if step else None)
        assert not step or self._world.digest() == self._oracle.hashes[step]
        assert not any(name.endswith(".tmp") for name in os.listdir(self._path))

    def _save(self, checkpoints: Checkpointer) -> None:
        for _ in range(self._draw.randint(1, 4)):
            self._world.scribble()
            self._step += 1
            self._say(Event.SAVING, self._step, self._world.digest())
            checkpoints.save({"step": self._step}, wait=self._draw.random() < 0.2)
        if self._draw.random() < 0.7:
            checkpoints.flush()
            self._say(Event.FLUSHED, self._step)
        if self._draw.random() < 0.1:
            checkpoints.compact(wait=self._draw.random() < 0.5)

    def _say(self, event: Event, step: int = 0, hashed: bytes = b"") -> None:
        os.write(self._log, _MESSAGE.pack(event.value, step, hashed))

    @contextmanager
    def _said_compactions(self) -> Iterator[None]:
        shorten = compactor.shorten

        def said(*arguments: Any, **keywords: Any) -> int:
            self._say(Event.COMPACTING)
            kept = shorten(*arguments, **keywords)
            self._say(Event.COMPACTED)
            return kept

        with mock.patch.object(compactor, "shorten", said):
            yield


class Torturer:
    """Kills the writers of one chain after the other.

    Attributes:
        killed: how many in the middle of what.
        checkpoints: how many were compared.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.killed: Counter[str] = Counter()
        self.checkpoints = 0
        self._draw = random.Random(seed)
        self._path = path
        self._chains = 0
        self._begin()

    def _begin(self) -> None:
        self._chains += 1
        self._chain = self._path / f"chain-{self._chains}"
        self._chain.mkdir()
        self._oracle = Oracle()
        self._lives = self._draw.randint(1, _LIVES)

    def kill(self) -> None:
        """Lets a writer live for a moment, and compares what is there then."""
        awaited = self._draw.choice([Event.RESUMING, Event.SAVING, Event.SAVING, Event.COMPACTING])
        reader, log = os.pipe()
        draw = random.Random(self._draw.randrange(1 << 32))
        pid = os.fork()
        if pid == 0:
            _live(lambda: Writer(self._chain, self._oracle, draw, awaited is Event.COMPACTING, log).run())
        os.close(log)
        try:
            said = self._listen_and_kill(pid, reader, awaited)
        finally:
            os.close(reader)
        self._count(said)
        self.checkpoints += self._oracle.check(self._chain)
        self._lives -= 1
        if not self._lives:
            shutil.rmtree(self._chain)
            self._begin()

    def _listen_and_kill(self, pid: int, reader: int, awaited: Event) -> Counter[Event]:
        said: Counter[Event] = Counter()
        count = self._draw.randint(1, 10) if awaited is Event.SAVING else 1
        try:
            self._hear(reader, said, lambda: said[awaited] >= count or said.total() > _MESSAGES, _PATIENCE)
            self._hear(reader, said, lambda: False, max(0.0, self._draw.uniform(*_MOMENT)))
        finally:
            os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._hear(reader, said, lambda: False, None)
        assert status == -signal.SIGKILL, f"the writer ended by itself, with status {status}"
        return said

    def _hear(
        self, reader: int, said: Counter[Event], enough: Callable[[], bool], seconds: float | None
    ) -> None:
        # Until it is enough, the time is over, or nobody is there to say anything.
        deadline = None if seconds is None else time.monotonic() + seconds
        while not enough():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([reader], [], [], left)[0]:
                return
            message = os.read(reader, _MESSAGE.size)
            if not message:
                return
            code, step, hashed = _MESSAGE.unpack(message)
            said[Event(code)] += 1
            self._oracle.learn(Event(code), step, hashed)

    def _count(self, said: Counter[Event]) -> None:
        self.killed["resuming"] += said[Event.RESUMED] == 0
        self.killed["compacting"] += said[Event.COMPACTING] > said[Event.COMPACTED]
        self.killed["writing"] += any(name.endswith(".tmp") for name in os.listdir(self._chain))


def _live(run: Callable[[], NoReturn]) -> NoReturn:
    try:
        run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)
