"""A process of a group whose driver commits what it prepares."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from dirtytrack._lifetime.undo import Undo
from dirtytrack.group import driver
from dirtytrack.group.part_writer import PartWriter
from dirtytrack.group.record import Record
from dirtytrack.group.records import Records, overtaken
from dirtytrack.group.settings import Settings


class Worker:
    """One worker of a driver: it prepares its parts, and the driver commits. For one thread at a time.

    Attributes:
        place: of the group.
        rank: 0: only its driver knows how many there are.
        title: what messages call it.
        newest: the newest state that is known to be committed, or with which it began.
    """

    rank = 0
    title = "a driver's"

    def __init__(self, settings: Settings, run: Mapping[str, Any], undo: Undo) -> None:
        """Restores the newest state of the driver's run.

        Args:
            settings: of the process.
            run: what the driver's `GroupCheckpointer.begin` has returned.
            undo: ends what this begins.

        Raises:
            TypeError, ValueError, BusyError: as `driver.run_of`.
            Others: as `PartWriter`.
        """
        self.place, self._settings = settings.place, settings
        self._records = Records(settings.root.bucket())
        self._run, state = driver.run_of(run, settings.root, self._records)
        folder = f"parts/{self._run.run}/{secrets.token_hex(8)}"
        self._writer = PartWriter(settings, self._records, self._run, state, folder)
        undo.callback(self._writer.give_up)
        self.newest = self.first
        self._prepared: list[str] = []

    @property
    def first(self) -> Record | None:
        """The state with which it began."""
        return self._writer.first

    def prepare(self, meta: Any, text: str, pause: AbstractContextManager[object] | None) -> dict[str, Any]:
        """Captures this worker's part, as `GroupCheckpointer.prepare` says; *text* is the meta as JSON.

        Raises:
            As there.
        """
        part = self._writer.capture(meta, pause)
        self._prepared.append(part.id)
        self._follow_driver()
        self._writer.make_durable(part)
        return driver.vote(self._run, self._writer.as_part(part), text)

    def bind(self, regions: Mapping[str, object]) -> None:
        """Has the saves from here on be of these regions.

        Raises:
            As `Checkpointer.bind`.
        """
        self._writer.bind(regions)

    def end(self, _is_normal: bool) -> None:
        """Closes the chain.

        Raises:
            As `Checkpointer.close`.
        """
        self._writer.close()

    def forget(self) -> None:
        """Ends this copy of it, in a forked child."""
        self._writer.close()

    def _follow_driver(self) -> None:
        # What it has committed so far, and what of that and of what it may yet commit has to stay.
        newest = self._records.newest()
        if newest is not None and newest.incarnation != self._run.incarnation:
            overtaken(self.place, newest)
        if (
            newest is not None
            and newest.state
            and (self.newest is None or newest.state != self.newest.number)
        ):
            self.newest = self._records.find(newest.state)
        if self._settings.keep is not None and newest is not None:
            states = self._records.states(newest)
            parts = {
                state.number: part for state in states for part in state.parts if self._writer.is_own(part)
            }
            committed = {number: part.id for number, part in parts.items()}
            for last in [*committed.values()][-1:]:
                if last in self._prepared:
                    del self._prepared[: self._prepared.index(last) + 1]
            self._writer.retain(committed, newest, self._prepared)
