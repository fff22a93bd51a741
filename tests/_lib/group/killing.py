"""Groups whose processes are killed again and again, and what every state that was reported has to hold.

As a program it does so in a process that no other test has used: what one forks that has opened a store of
obstore's can open none. It is told of rounds, a seed and a `Where`, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from _lib.group.processes import codes_of, forked
from _lib.group.ranks import after, shards, step_on
from _lib.support import in_child
from dirtytrack import ChainError, Session
from dirtytrack.checkpoint import Keep
from dirtytrack.group import GroupChain, GroupCheckpointer, compact_group, file_coordinator

ROUNDS = int(os.environ.get("DIRTYTRACK_TORTURE_KILLS") or 200)  # more by `make torture`

_MOST = 8  # processes
_NAMES = [f"shard-{at}" for at in range(_MOST)]
_SIZE = 3000
_LINE = 128  # bytes of what a process says
_PATIENCE = 60.0  # until they are killed, whatever they have done
_LIVES = 15  # runs of a group, at most
_COMPARED = 3  # of the states that are there, the newest; and as many of the oldest
_EVERY = 4


@dataclass(frozen=True)
class Where:
    """Where the groups of a `Killer` are.

    Attributes:
        folder: of this test.
        url: below which they are; None: they are directories.
        options: ``store_options`` of the URL.
        has_nodes: whether each rank has a directory of its own, of which the URL is the mirror.
    """

    folder: Path
    url: str | None = None
    options: Mapping[str, Any] | None = None
    has_nodes: bool = False

    def group(self, number: int) -> tuple[Path | str, dict[str, Any]]:
        """The place of one, and keywords for who reads it."""
        if self.url is None:
            return self.folder / f"group-{number}", {}
        return f"{self.url}/group-{number}", {"store_options": self.options}

    def opening(self, number: int, rank: int) -> tuple[Path | str, dict[str, Any]]:
        """The path for a rank, and keywords for it."""
        place, keywords = self.group(number)
        if self.url is None:
            return place, {"fsync": False}
        keywords |= {"fsync": False, "grace_period": 0}
        if not self.has_nodes:
            return place, keywords
        return self.folder / f"node-{rank}" / f"group-{number}", keywords | {"mirror": place}


class Killer:
    """Starts the processes of a group, kills one of them, and then the others; and who makes it short.

    Attributes:
        killed: how many rounds ended how.
        states: how many were compared.
    """

    def __init__(self, where: Where, seed: int) -> None:
        self.killed: Counter[str] = Counter()
        self.states = 0
        self._where, self._path, self._draw = where, where.folder, random.Random(seed)
        self._rounds = self._group = 0
        self._world = 1
        self._begin()

    def _begin(self) -> None:
        self._group += 1
        self._reported = self._newest = 0  # steps
        self._lives = self._draw.randint(2, _LIVES)
        self._policy = self._draw.choice([None, Keep(1, every=_EVERY, best="loss"), Keep(2, best="loss")])
        self._seen: dict[int, int] = {}  # the steps of states by their numbers

    def kill(self) -> None:
        """A round: some saves, a kill at random, and what is there then."""
        if self._draw.random() < 0.5:  # else as many as before, who go on with what they have
            self._world = self._draw.randint(1, _MOST)
        self._rounds += 1
        if self._newest and self._draw.random() < 0.3:
            self._compact()
        before = self._reported
        reader, log = os.pipe()
        meeting = self._path / f"meeting-{self._rounds}"
        pids = [self._start(rank, self._world, meeting, log) for rank in range(self._world)]
        os.close(log)
        try:
            self._listen(reader, pids)
        finally:
            for pid in self._draw.sample(pids, len(pids)):
                os.kill(pid, signal.SIGKILL)
            codes = codes_of(pids)
        self._hear(reader)
        os.close(reader)
        assert set(codes) <= {-signal.SIGKILL}, codes
        self.killed["saving" if self._reported > before else "before the first state"] += 1
        self._check()
        shutil.rmtree(meeting, ignore_errors=True)
        if self._where.has_nodes and self._draw.random() < 0.2:  # another machine is next
            shutil.rmtree(self._path / f"node-{self._draw.randrange(self._world)}", ignore_errors=True)
        self._lives -= 1
        if not self._lives:
            nodes = [self._path / f"node-{rank}" for rank in range(_MOST)]
            for one in (self._path, *nodes):
                shutil.rmtree(one / f"group-{self._group}", ignore_errors=True)
            self._begin()

    def _start(self, rank: int, world: int, meeting: Path, log: int) -> int:
        draw = random.Random(self._draw.randrange(1 << 32))
        place, options = self._where.opening(self._group, rank)
        options |= {"keep": self._policy or (1, 2, None)[self._rounds % 3]}
        return forked(lambda: _run(place, rank, world, meeting, log, draw, self._newest, options))

    def _compact(self) -> None:
        # Nobody else is there. It is killed, or ends.
        place, options = self._where.group(self._group)
        if self._where.url is not None:
            options |= {"grace_period": 0}
        keep = self._policy or self._draw.randint(1, 2)
        pid = forked(lambda: compact_group(place, keep, fsync=False, **options))
        is_killed = self._draw.random() < 0.5
        if is_killed:
            time.sleep(self._draw.uniform(0, 0.1))
            os.kill(pid, signal.SIGKILL)
        code = codes_of([pid])[0]
        assert code in ((0, -signal.SIGKILL) if is_killed else (0,)), code
        self.killed["compacting" if code else "compacted"] += 1

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
        # In a child: of a store of obstore's that this process has opened a forked one could open none.
        done = in_child(self._find)
        assert (done.status, done.error) == (0, ""), done.error
        compared, there = done.value
        self.states += compared
        newest = max(there.values(), default=0)
        assert newest >= max(self._reported, self._newest), (newest, self._reported, self._newest)
        self._newest = newest
        self._seen |= there
        if newest and self._policy is not None:
            every = self._policy.every
            kept = {step for number, step in self._seen.items() if every and number % every == 0}
            kept.add(min(range(1, newest + 1), key=lambda step: (_loss(step), -step)))  # no step is left out
            assert kept <= {*there.values()}, (kept, there)

    def _find(self) -> tuple[int, dict[int, int]]:
        # How many states were compared, each whole and of one step; and the steps of all by their numbers.
        place, options = self._where.group(self._group)
        try:
            chain = GroupChain(place, **options)
        except ChainError:
            return 0, {}
        compared = {one.number: one for one in chain.checkpoints[:_COMPARED] + chain.checkpoints[-_COMPARED:]}
        for state in compared.values():
            for name in _NAMES:
                found = chain.load(name, at=state.number)
                np.testing.assert_array_equal(found, after(name, state.meta["step"], _SIZE))
        assert chain.verify() == []
        return len(compared), {state.number: state.meta["step"] for state in chain}


def _loss(step: int) -> int:
    return step * 7 % 23


def _run(
    place: Path | str,
    rank: int,
    world: int,
    meeting: Path,
    log: int,
    draw: random.Random,
    newest: int,
    options: dict[str, Any],
) -> NoReturn:
    with Session() as session:
        arrays = shards(_NAMES, rank, world, _SIZE)
        coordinator = file_coordinator(meeting, rank, world, timeout=10 * _PATIENCE)
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
            save = checkpoints.save({"step": step, "loss": _loss(step)})
            if draw.random() < 0.4:
                save.wait()
                os.write(log, json.dumps({"step": step}).ljust(_LINE).encode())


def _main() -> None:
    told = json.loads(sys.argv[1])
    where = Where(Path(told["folder"]), told["url"], told["options"], told["has_nodes"])
    killer = Killer(where, told["seed"])
    for _ in range(told["rounds"]):
        killer.kill()
    print(json.dumps({"states": killer.states, "killed": killer.killed}))


if __name__ == "__main__":
    _main()
