"""The description of a checkpoint file: one JSON object, encoded and decoded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, get_args

from dirtytrack.checkpoint.format.layout import Layout, check_table
from dirtytrack.checkpoint.format.structures import FormatError

Consistency = Literal["proven", "paused", "unproven"]

_CONSISTENCIES = get_args(Consistency)


class Description(NamedTuple):
    """What a file says of its checkpoint, but for the table of regions.

    Attributes:
        meta: what the user gave, as JSON text: nobody can change it.
        created: when the state was captured, in seconds since 1970.
        consistency: whether the state is known to be that of one instant.
        statistics: of the save.
    """

    meta: str
    created: float
    consistency: Consistency
    statistics: Mapping[str, Any]

    def encode(self, regions: Sequence[Layout]) -> bytes:
        """The bytes in the file, with this table of regions."""
        table = json.dumps([layout.to_json() for layout in regions])
        rest = json.dumps(
            {"created": self.created, "consistency": self.consistency, "statistics": self.statistics}
        )
        return f'{{"regions": {table}, "meta": {self.meta}, {rest[1:]}'.encode()

    @classmethod
    def decode(cls, data: bytes) -> tuple[tuple[Layout, ...], Self]:
        """The table of regions, at least one, and the rest.

        Raises:
            FormatError: the bytes say something else.
        """
        try:
            found = json.loads(data.decode())
            regions = tuple(Layout.from_json(value) for value in found["regions"])
            described = cls(
                json.dumps(found["meta"]), _time(found["created"]), found["consistency"], found["statistics"]
            )
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise FormatError(f"its description is something else ({error!r})") from None
        check_table(regions)
        if described.consistency not in _CONSISTENCIES or not isinstance(described.statistics, dict):
            raise FormatError("its description holds impossible values")
        return regions, described


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no time")
    return float(value)
