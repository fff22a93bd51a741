"""A Checkpointer that is told at each save what the state is."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from typing import Any

from dirtytrack.checkpoint import Checkpointer, Save
from dirtytrack.torch._plan import Plan
from dirtytrack.torch._tree import Parts

OPTIONS = frozenset(
    name
    for name, parameter in inspect.signature(Checkpointer).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
)  # the keywords of a Checkpointer


class StateSaver:
    """Saves states whose tensors may come, go and move. For one thread at a time.

    Attributes:
        checkpoints: which writes them.
    """

    def __init__(self, plan: Plan, checkpoints: Checkpointer) -> None:
        """Goes on with a Checkpointer of a plan's regions."""
        self.checkpoints = checkpoints
        self._plan = plan

    def save(
        self,
        parts: Parts,
        meta: Any = None,
        *,
        wait: bool = False,
        pause: AbstractContextManager[object] | None = None,
    ) -> Save:
        """Saves a state.

        Raises:
            TypeError, ValueError: an entry can't be saved; it is named. Nothing was saved.
            Others: as for `Checkpointer.save`.
        """
        if not self._plan.still_fits(parts) or not self._plan.write(parts):
            plan = Plan(parts, self._plan)
            self.checkpoints.bind(plan.regions)
            self._plan = plan
            plan.write(parts)
        return self.checkpoints.save(meta, wait=wait, pause=pause)
