"""``struct pm_scan_arg``, the argument of PAGEMAP_SCAN: its fields, in the kernel's order."""

from __future__ import annotations

import operator
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from dirtytrack.native import ffi

if TYPE_CHECKING:
    from typing_extensions import Buffer

SCAN: Final = "PAGEMAP_SCAN"
SCAN_ARG_SIZE: Final = ffi.sizeof("struct dt_pm_scan_arg")

_ARG = struct.Struct("=12Q")


class ScanArg(NamedTuple):
    """The argument of one call; what is not given is 0. `dirtytrack.kernel.pagemap.scan` explains the fields.

    ``ffi.new("struct dt_pm_scan_arg *", arg)`` takes it as it is.
    """

    size: int = SCAN_ARG_SIZE
    flags: int = 0
    start: int = 0
    end: int = 0
    walk_end: int = 0
    vec: int = 0
    vec_len: int = 0
    max_pages: int = 0
    category_inverted: int = 0
    category_mask: int = 0
    category_anyof_mask: int = 0
    return_mask: int = 0

    @property
    def categories(self) -> int:
        """Every category that a mask names."""
        return self.category_inverted | self.category_mask | self.category_anyof_mask | self.return_mask

    def write(self, memory: Buffer) -> None:
        """Write it to the beginning of *memory*, as the kernel reads it.

        Raises:
            TypeError, ValueError: a value is no integer, or does not fit 64 unsigned bits; it is named.
        """
        try:
            _ARG.pack_into(memory, 0, *self)
        except struct.error:
            raise self._misfit() from None

    @classmethod
    def read(cls, memory: Buffer) -> Self:
        """Read the one at the beginning of *memory*. Its values are plain integers, whatever was written."""
        return cls._make(_ARG.unpack_from(memory))

    def _misfit(self) -> Exception:
        for name, value in self._asdict().items():
            if not hasattr(value, "__index__"):
                return TypeError(f"{name} must be an integer, not {type(value).__name__}")
            if not 0 <= operator.index(value) < 1 << 64:
                return ValueError(f"{name}={value} does not fit the field: it holds 0 to 2**64 - 1")
        raise AssertionError("every field fits")
