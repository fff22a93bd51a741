"""The description of a checkpoint file: one JSON object, encoded and decoded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, NoReturn, Self, get_args

from dirtytrack._json import parse
from dirtytrack.checkpoint.format.layout import Layout, check_table
from dirtytrack.checkpoint.format.new_table import NewTable
from dirtytrack.checkpoint.format.structures import MAX_DESCRIPTION_MEMORY, FormatError, Kind, shortened

Regions = tuple[Layout, ...] | NewTable | None  # of a base; of a delta, if it is not that of its parent
Consistency = Literal["proven", "paused", "stopped", "unproven"]

TABLE_NAME_BYTES = 16
MAX_DIGITS = 4300  # of an integer: as many as Python reads unless it is told otherwise
COUNT_BYTES = 20  # for a number of blocks

_CONSISTENCIES = get_args(Consistency)


class Description(NamedTuple):
    """What a file says of its checkpoint, but for the table of regions.

    Attributes:
        table: names the table of regions: 32 hexadecimal digits.
        meta: what the user gave, as JSON text: nobody can change it.
        created: when the state was captured, in seconds since 1970.
        consistency: whether the state is known to be that of one instant.
        statistics: of the save.
    """

    table: str
    meta: str
    created: float
    consistency: Consistency
    statistics: Mapping[str, Any]

    def encode(self, regions: Regions) -> bytes:
        """The bytes in the file, with the table of regions."""
        return self._encode(regions).encode()

    def encode_uncounted(self, regions: Regions) -> tuple[bytes, int]:
        """The same before it is known how many blocks are stored, the last of the statistics.

        For these there are `COUNT_BYTES` bytes from the second item on.
        """
        before = f'{self._encode(regions)[:-2]}, "blocks_stored": '.encode()
        return before + b" " * COUNT_BYTES + b"}}", len(before)

    def _encode(self, regions: Regions) -> str:
        table: dict[str, Any] = {"table": self.table}
        if isinstance(regions, NewTable):
            table["regions"] = regions.to_json()
        elif regions is not None:
            table["regions"] = [layout.to_json() for layout in regions]
        rest = json.dumps(
            {"created": self.created, "consistency": self.consistency, "statistics": self.statistics}
        )
        return f'{json.dumps(table)[:-1]}, "meta": {self.meta}, {rest[1:]}'

    @classmethod
    def decode(cls, data: bytes, kind: Kind) -> tuple[Regions, Self]:
        """The table of regions, that of a base checked, and the rest.

        Raises:
            FormatError: the bytes say something else.
        """
        try:
            found = _parse(data)
            regions = _regions(found, kind)
            described = cls(
                _table_name(found["table"]),
                json.dumps(found["meta"], allow_nan=False),
                _time(found["created"]),
                found["consistency"],
                found["statistics"],
            )
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise FormatError(f"its description is something else ({_name(error)})") from None
        if isinstance(regions, tuple):
            check_table(regions)
        known = isinstance(described.consistency, str) and described.consistency in _CONSISTENCIES
        if not known or not isinstance(described.statistics, dict):
            raise FormatError("its description holds impossible values")
        return regions, described


def _regions(found: Any, kind: Kind) -> Regions:
    if kind is Kind.BASE:
        return tuple(Layout.from_json(value) for value in found["regions"])
    return NewTable.from_json(found["regions"]) if "regions" in found else None


def _parse(data: bytes) -> Any:
    # JSON as every reader understands it: no key twice, no NaN, no integer that takes long.
    hooks = {"object_pairs_hook": _unique, "parse_int": _integer, "parse_constant": _refuse}
    return parse(data, MAX_DESCRIPTION_MEMORY, **hooks)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _name(error: Exception) -> str:
    # Of what may hold a value from the file, of any length.
    return f"{type(error).__name__}: {shortened(str(error))}"


def _table_name(value: Any) -> str:
    digits = set("0123456789abcdef")
    if not isinstance(value, str) or len(value) != 2 * TABLE_NAME_BYTES or not digits.issuperset(value):
        raise ValueError("its table of regions has no name")
    return value


def _time(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("it has no time")
    return float(value)
