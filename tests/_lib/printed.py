"""What the program of a page prints, beside what the page says that it does."""

from __future__ import annotations

import io
import re

# Times and sizes are measured, and addresses are as it happens; the widths of columns follow them. On how
# many pages memory lies, and what copies of it take, depends on its address.
_MEASURED = re.compile(
    r"\b0x[0-9a-f]+|\d[\d,]*\.\d+|\b\d[\d,]*(?= (?:pages written back|bytes for|of \d+ states)\b)"
)
_SPACES = re.compile(r"[ \t]+")


class Printed(io.StringIO):
    """Standard output of a page's program: `begin` at each block, `check` where the page shows the output."""

    def begin(self) -> None:
        """Forget what was printed so far."""
        self.seek(0)
        self.truncate()

    def check(self, shown: str) -> None:
        """Compare what was printed since with what is shown, but for addresses and what is measured.

        Raises:
            AssertionError: they differ.
        """
        printed = self.getvalue()
        assert _without_measures(printed) == _without_measures(shown), f"printed:\n{printed}"


def _without_measures(text: str) -> str:
    lines = (_SPACES.sub(" ", _MEASURED.sub("N", line)).strip() for line in text.splitlines())
    return "\n".join(lines).strip()
