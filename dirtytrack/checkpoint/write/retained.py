"""Which checkpoints stay when a chain is made short, whatever its policy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, Self

from dirtytrack._text import several


class Retained(NamedTuple):
    """Checkpoints that stay, whatever the policy.

    Attributes:
        ids: their identifiers.
        since: of one that stays with all that came after it, each by its own file: so what copies the files
            of the newest state, as a mirror does, has each of these states, too. None: of none.
    """

    ids: frozenset[str]
    since: str | None

    @classmethod
    def of(cls, checkpoints: Iterable[str], since: str | None = None) -> Self:
        """As users name them.

        Raises:
            TypeError, ValueError: some are no identifiers.
        """
        if since is not None:
            _check_ids([since])
        return cls(_check_ids(checkpoints), since)


NOTHING = Retained(frozenset(), None)


def _check_ids(identifiers: Iterable[str]) -> frozenset[str]:
    found = frozenset(several(identifiers, "identifiers of checkpoints"))
    for one in found:
        if not re.fullmatch("[0-9a-f]{32}", one):
            raise ValueError(f"{one[:40]!r} is no identifier of a checkpoint: 32 hexadecimal digits")
    return found
