"""Actors whose requests to a bucket are made in an order that a test chooses, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

_REQUESTS = ("put_new", "get", "size", "first_page", "find", "delete")


class Point(NamedTuple):
    """Where an order was chosen: who could go on, who did before, and who was chosen."""

    ready: tuple[int, ...]
    last: int
    chosen: int


class _Stepped:
    # A bucket each of whose requests waits for its turn.

    def __init__(self, bucket: Any, turn: Callable[[], None]) -> None:
        self.place = bucket.place
        for name in _REQUESTS:
            setattr(self, name, self._stepped(getattr(bucket, name), turn, name))

    @staticmethod
    def _stepped(request: Callable[..., Any], turn: Callable[[], None], name: str) -> Callable[..., Any]:
        def make(*args: Any) -> Any:
            turn()
            done = request(*args)
            return iter([*done]) if name == "find" else done

        return make


class _Actor:
    def __init__(self, bucket: Any, act: Callable[[Any], Any]) -> None:
        self.result: Any = None
        self.is_done = False
        self._go: SimpleQueue[None] = SimpleQueue()
        self._waits: SimpleQueue[None] = SimpleQueue()
        self._act, self._bucket = act, _Stepped(bucket, self._turn)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._waits.get()

    def step(self) -> None:
        self._go.put(None)
        self._waits.get()
        if self.is_done:
            self._thread.join()

    def _turn(self) -> None:
        self._waits.put(None)
        self._go.get()

    def _run(self) -> None:
        self._turn()
        try:
            self.result = self._act(self._bucket)
        except Exception as error:
            self.result = error
        self.is_done = True
        self._waits.put(None)


Choose = Callable[[tuple[int, ...], int], int]


def play(bucket: Any, acts: list[Callable[[Any], Any]], choose: Choose) -> tuple[list[Any], list[Point]]:
    """What the actors return or raise, and where there was a choice.

    Args:
        bucket: theirs.
        acts: what each does with it.
        choose: who goes on, of those that can, and told who did before.
    """
    actors = [_Actor(bucket, act) for act in acts]
    points: list[Point] = []
    last = -1
    while ready := tuple(at for at, one in enumerate(actors) if not one.is_done):
        chosen = choose(ready, last)
        points.append(Point(ready, last, chosen))
        actors[chosen].step()
        last = chosen
    return [one.result for one in actors], points


def all_orders(run: Callable[[Choose], list[Point]], preemptions: int) -> int:
    """Plays every order in which actors are interrupted at most so often before they have ended.

    Args:
        run: plays one, and says where there was a choice.
        preemptions: how often.

    Returns:
        How many there were.
    """
    waiting: list[tuple[list[int], int]] = [([], preemptions)]
    count = 0
    while waiting:
        order, left = waiting.pop()
        points = run(_following(order))
        count += 1
        for at in range(len(order), len(points)):
            point = points[at]
            for other in point.ready:
                cost = int(point.last in point.ready and other != point.last)
                if other != point.chosen and cost <= left:
                    waiting.append(([*(one.chosen for one in points[:at]), other], left - cost))
    return count


def _following(order: list[int]) -> Choose:
    # As it says, and after it the same one as before, as long as that can.
    rest = iter(order)

    def choose(ready: tuple[int, ...], last: int) -> int:
        return next(rest, last if last in ready else ready[0])

    return choose
