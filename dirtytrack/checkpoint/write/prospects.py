"""Whether it is worth it to try to compress what comes next, from what became of that before it."""

from __future__ import annotations

_FIRST_SKIPPED = 3  # times as many bytes as became no shorter are not tried after that
# The same, after several in a row, if many files follow. With the one that is tried it is an odd number: many
# a save is a power of two, and would always be tried at the same place.
_MOST_SKIPPED = 62
MOST_AT_ONCE = 8  # segments


class Prospects:
    """What is expected of the next segments of a chain, or of a base.

    Where nobody asked for compression, segments that become no shorter cost time for nothing, and Python is
    needed for each. So each one of them doubles what is stored as it is before another one is tried, and the
    first that is worth it ends that. What changes its nature is found after 62 times the bytes of a segment
    at most; with segments of 4 MiB that is 248 MiB.

    Attributes:
        at_once: how many segments are to be tried together: with one call, but maybe each in vain.
    """

    def __init__(self, *, is_asked_for: bool, is_lasting: bool = True) -> None:
        """Knows nothing yet.

        Args:
            is_asked_for: then everything is tried, always.
            is_lasting: whether they are of many files. In one alone, a base, the skips stay as short as the
                first: its regions were chosen, and what compresses in them may lie behind much that does not.
        """
        self._is_asked_for = is_asked_for
        self._most = _MOST_SKIPPED if is_lasting else _FIRST_SKIPPED
        self._skipped = 0  # bytes that are not tried
        self._next = _FIRST_SKIPPED
        self.at_once = MOST_AT_ONCE if is_asked_for else 1

    def are_bad(self, nbytes: int) -> bool:
        """Whether none of the next bytes is to be tried."""
        return nbytes <= self._skipped

    def pass_over(self, nbytes: int) -> None:
        """So many bytes are stored as they are."""
        self._skipped = max(0, self._skipped - nbytes)

    def learn(self, nbytes: int, *, is_worth: bool) -> None:
        """A segment of so many bytes was tried."""
        if self._is_asked_for:
            return
        if is_worth:
            self._next, self.at_once = _FIRST_SKIPPED, min(2 * self.at_once, MOST_AT_ONCE)
        else:
            self._skipped, self.at_once = self._next * nbytes, 1
            self._next = min(2 * self._next + 1, self._most)
