"""Which checkpoints stay when a chain is made short."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Candidate(NamedTuple):
    """What a policy knows of a checkpoint."""

    number: int
    created: float
    meta: Any


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the newest ones, and of the older ones those that any of the others names.

    Pass it as ``keep=``. An older one that stays becomes a base, so it takes as much room as a whole state.

    Attributes:
        newest: number of newest checkpoints that stay, at least 1.
        every: of the older ones those whose number is a multiple of this.
        seconds: of the older ones the first in each span of so many seconds: 3600 keeps one an hour.
        best: the key of a number in the meta, a dictionary: of all checkpoints the one with the least stays.
        highest: whether the greatest number is the best one, and not the least.
    """

    newest: int = 1
    every: int | None = None
    seconds: float | None = None
    best: str | None = None
    highest: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.newest, bool) or not isinstance(self.newest, int) or self.newest < 1:
            raise ValueError(f"newest={self.newest!r}: at least one checkpoint has to stay")
        if self.every is not None and (not isinstance(self.every, int) or self.every < 1):
            raise ValueError(f"every={self.every!r}: a whole number, at least 1")
        if self.seconds is not None and not (isinstance(self.seconds, int | float) and self.seconds > 0):
            raise ValueError(f"seconds={self.seconds!r}: a number above 0")
        if self.best is not None and not isinstance(self.best, str):
            raise TypeError(f"best is a key of the meta, not {self.best!r}")

    def chosen(self, records: Sequence[Candidate]) -> set[int]:
        """The numbers of those that stay beside the newest ones, of the checkpoints in order."""
        found: set[int] = set()
        if self.every is not None:
            found |= {one.number for one in records if one.number % self.every == 0}
        if self.seconds is not None:
            first: dict[int, int] = {}
            for one in records:
                first.setdefault(int(one.created // self.seconds), one.number)
            found |= {*first.values()}
        if self.best is not None:
            rated = [(value, one.number) for one in records if (value := self._value(one)) is not None]
            if rated:
                value = (max if self.highest else min)(value for value, _ in rated)
                found.add(max(number for rate, number in rated if rate == value))
        return found

    def _value(self, record: Candidate) -> float | None:
        value = record.meta.get(self.best) if isinstance(record.meta, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return None
        return value
