"""Real processes of torch.distributed: whichever is killed, the state stays whole."""

from __future__ import annotations

import functools
import os
import random
import signal

import pytest

from _lib.group.processes import codes_of, forked
from _lib.group.ranks import after, shards, step_on
from _lib.support import library

pytestmark = pytest.mark.torch

torch = library("torch")

from dirtytrack.group import GroupChain, GroupCheckpointer, torch_coordinator  # noqa: E402 - after the skip

NAMES = [f"shard-{at}" for at in range(4)]
ROUNDS = int(os.environ.get("DIRTYTRACK_TORTURE_KILLS") or 6)


def _start(act, world, meeting):
    def run(rank):
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        from torch import distributed

        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
        act(rank)

    return [forked(functools.partial(run, rank)) for rank in range(world)]


def test_killed_processes_lose_nothing(tmp_path):
    """One of two or three is killed in the middle of a save; the others end by themselves."""
    draw = random.Random(1)
    newest = 0
    for at in range(ROUNDS):
        world, victim = draw.choice([(2, 0), (2, 1), (3, 1), (3, 2)])
        survives = at % 3 == 2  # now and then nobody is killed

        def train(rank, world=world, victim=None if survives else victim, newest=newest):
            arrays = shards(NAMES, rank, world)
            options = {"coordinator": torch_coordinator(timeout=60), "keep": 2, "fsync": False}
            with GroupCheckpointer.open(tmp_path / "g", arrays, **options) as checkpoints:
                first = checkpoints.meta["step"] if checkpoints.resumed else 0
                assert first >= newest
                for step in range(first + 1, first + 6):
                    torch.distributed.all_reduce(torch.zeros(1))  # the training's own
                    step_on(arrays, step)
                    save = checkpoints.save({"step": step})
                    if rank == victim and step == first + 3:
                        os.kill(os.getpid(), signal.SIGKILL)
                    if step == first + 2:
                        save.wait()

        codes = codes_of(_start(train, world, tmp_path / f"meeting-{at}"))
        assert (codes == [0] * world) == survives
        assert survives or codes[victim] == -signal.SIGKILL
        chain = GroupChain(tmp_path / "g")
        for state in chain:
            for name in NAMES:
                assert (chain.load(name, at=state.number) == after(name, state.meta["step"])).all()
        assert chain.meta["step"] >= newest + (5 if survives else 2)
        newest = chain.meta["step"]


def test_a_process_that_does_not_come_is_told(tmp_path):
    """In a bounded time, and the training's own group is as it was."""

    def meet(rank):
        coordinator = torch_coordinator(timeout=1)
        assert coordinator.gather(rank) == ([0, 1] if rank == 0 else None)
        assert coordinator.broadcast({"of": rank}) == {"of": 0}
        if rank == 0:
            with pytest.raises(ConnectionError, match="rank 0 of 2 lost another one"):
                coordinator.gather(None)
        coordinator.close()
        coordinator.close()
        torch.distributed.barrier()

    assert codes_of(_start(meet, 2, tmp_path / "meeting")) == [0, 0]


def test_torch_has_to_be_initialized():
    """It says how."""
    with pytest.raises(RuntimeError, match="init_process_group"):
        torch_coordinator()
