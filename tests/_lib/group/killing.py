"""Groups whose processes are killed again and again, and what every state that was reported has to hold."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NoReturn

import numpy as np

from _lib.group.ranks import after, shards, step_on
from dirtytrack import Session
from dirtytrack.group import GroupChain, GroupCheckpointer, file_coordinator

ROUNDS = int(os.environ.get("DIRTYTRACK_TORTURE_KILLS") or 100)  # more by `make torture`

_NAMES = [f"shard-{at}" for at in range(6)]
_SIZE = 3000
_LINE = 128  # bytes of what a process says
_PATIENCE = 60.0
_LIVES = 15  # runs of a group, at most
_COMPARED = 3  # of the states that are there, the newest


class Killer:
    """Starts the processes of a group, kills one of them, and then the others.

    Attributes:
        killed: how many rounds ended how.
        states: how many were compared.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.killed: Counter[str] = Counter()
        self.states = 0
        self._path, self._draw = path, random.Random(seed)
        self._rounds = 0
        self._begin()

    def _begin(self) -> None:
        self._place = self._path / f"group-{self._rounds}"
        self._reported = self._newest = 0  # steps
        self._lives = self._draw.randint(2, _LIVES)

    def kill(self) -> None:
        """A round: some saves, a kill at random, and what is there then."""
        world = self._draw.randint(1, 4)
        self._rounds += 1
        before = self._reported
        reader, log = os.pipe()
        meeting = self._path / f"meeting-{self._rounds}"
        pids = [self._start(rank, world, meeting, log) for rank in range(world)]
        os.close(log)
        try:
            self._listen(reader, pids)
        finally:
            for pid in self._draw.sample(pids, len(pids)):
                os.kill(pid, signal.SIGKILL)
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        self._hear(reader)
        os.close(reader)
        assert set(codes) <= {-signal.SIGKILL}, codes
        self.killed["saving" if self._reported > before else "before the first state"] += 1
        self._check()
        shutil.rmtree(meeting, ignore_errors=True)
        self._lives -= 1
        if not self._lives:
            shutil.rmtree(self._place, ignore_errors=True)
            self._begin()

    def _start(self, rank: int, world: int, meeting: Path, log: int) -> int:
        draw = random.Random(self._draw.randrange(1 << 32))
        options = {"keep": (1, 2, None)[self._rounds % 3], "fsync": False}
        pid = os.fork()
        if pid == 0:
            try:
                _run(self._place, rank, world, meeting, log, draw, self._newest, options)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(1)
        return pid

    def _listen(self, reader: int, pids: list[int]) -> None:
        # Until so many were reported, or for a moment; then one of them dies, and the others a little later.
        wanted, deadline = self._draw.randint(0, 8), time.monotonic() + _PATIENCE
        heard = 0
        while heard < wanted and time.monotonic() < deadline:
            if not select.select([reader], [], [], deadline - time.monotonic())[0]:
                break
            heard += self._hear_one(reader)
        time.sleep(self._draw.uniform(0, 0.02 if wanted else 0.1))
        os.kill(self._draw.choice(pids), signal.SIGKILL)
        time.sleep(self._draw.choice([0, self._draw.uniform(0, 0.02)]))

    def _hear_one(self, reader: int) -> int:
        line = os.read(reader, _LINE)
        if not line:
            return 0
        said = json.loads(line)
        self._reported = max(self._reported, said["step"])
        return 1

    def _hear(self, reader: int) -> None:
        while self._hear_one(reader):
            pass

    def _check(self) -> None:
        # The states that are there, each whole and of one step; the newest is not older than what was told.
        if not (self._place / "records").exists():
            assert not self._reported
            return
        try:
            chain = GroupChain(self._place)
        except ValueError:
            assert not self._reported
            return
        for state in chain.checkpoints[-_COMPARED:]:
            for name in _NAMES:
                found = chain.load(name, at=state.number)
                np.testing.assert_array_equal(found, after(name, state.meta["step"], _SIZE))
            self.states += 1
        assert chain.verify() == []
        newest = chain.meta["step"]
        assert newest >= max(self._reported, self._newest), (newest, self._reported, self._newest)
        self._newest = newest


def _run(
    place: Path,
    rank: int,
    world: int,
    meeting: Path,
    log: int,
    draw: random.Random,
    newest: int,
    options: dict[str, object],
) -> NoReturn:
    with Session() as session:
        arrays = shards(_NAMES, rank, world, _SIZE)
        coordinator = file_coordinator(meeting, rank, world, timeout=_PATIENCE)
        checkpoints = GroupCheckpointer.open(
            place, arrays, coordinator=coordinator, session=session, **options
        )
        step = checkpoints.meta["step"] if checkpoints.resumed else 0
        assert step == newest, (step, newest)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, after(name, step, _SIZE))
        while True:
            step += 1
            step_on(arrays, step)
            save = checkpoints.save({"step": step})
            if draw.random() < 0.4:
                save.wait()
                os.write(log, json.dumps({"step": step}).ljust(_LINE).encode())
