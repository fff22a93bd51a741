"""The memory that a Checkpointer saves, tracked."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import replace

from dirtytrack._json import check
from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.format.structures import MAX_DESCRIPTION, MAX_DESCRIPTION_MEMORY
from dirtytrack.objects import Description
from dirtytrack.tracking import Region, Session, resolve, session_for, track_many

_MAX_TABLE = MAX_DESCRIPTION // 2 - 4096  # the other half is for the meta


class Holdings:
    """The memory of each name. What comes or goes later makes another one, which shares what stays.

    Attributes:
        memories: what was given.
        session: which tracks it; None until it does.
        regions: the region of each name whose memory has bytes, one for names of the same memory.
        layouts: the table of regions.
    """

    def __init__(self, memories: Mapping[str, object]) -> None:
        """Tracks nothing yet: say first that `release` ends it."""
        self.memories = dict(memories)
        self.session: Session | None = None
        self.regions: dict[str, Region] = {}
        self.layouts: list[Layout] = []
        self._undos: dict[str, Undo] = {}  # of the memory that it tracks itself

    def track(
        self, session: Session | None, before: Holdings | None = None, anew: frozenset[str] = frozenset()
    ) -> Session:
        """Tracks the memory, and returns the session that does.

        Args:
            session: as for `session_for`.
            before: tracks some of it already.
            anew: names of which it is to be tracked anew all the same.

        Raises:
            ValueError: it takes too long a description.
            Others: as `Session.track`.
        """
        found = {name: resolve(memory, empty=True) for name, memory in self.memories.items()}
        owners: dict[tuple[int, int], str] = {}
        for name in sorted(found, key=self._is_untracked):  # regions come first
            if found[name].nbytes:
                owners.setdefault((found[name].address, found[name].nbytes), name)
        self.session = session = session_for(session, self.memories.values())
        for name in owners.values():
            if before is None or name in anew or not self._take_over(name, found[name], before):
                undo = self._undos[name] = Undo()
                self.regions |= track_many({name: self.memories[name]}, session, undo)[1]
        self._describe(found, owners)
        return session

    def is_new(self, name: str, before: Holdings) -> bool:
        """Whether the memory of a name was not tracked by an earlier one."""
        return self.regions[name] is not before.regions.get(name)

    def release(self, after: Holdings | None = None) -> None:
        """Ends the tracking of what another one has not taken over."""
        kept = {*after._undos.values()} if after else set()
        for undo in self._undos.values():
            if undo not in kept:
                undo.close()

    def _is_untracked(self, name: str) -> bool:
        return not isinstance(self.memories[name], Region)

    def _take_over(self, name: str, memory: Description, before: Holdings) -> bool:
        region, undo = before.regions.get(name), before._undos.get(name)
        if region is None or undo is None or not self._is_untracked(name):
            return False
        if (region.address, region.nbytes) != (memory.address, memory.nbytes) or region.lost:
            return False
        self._undos[name], self.regions[name] = undo, region
        return True

    def _describe(self, found: dict[str, Description], owners: dict[tuple[int, int], str]) -> None:
        places = {name: place for place, name in enumerate(owners.values())}
        self.layouts = [Layout.of(name, found[name], self.regions[name].page_size) for name in places]
        for name in [name for name in found if name not in places]:
            owner = owners.get((found[name].address, found[name].nbytes))
            if owner is None:
                self.layouts.append(Layout.of(name, found[name], mmap.PAGESIZE))
                continue
            self.regions[name] = self.regions[owner]
            layout = Layout.of(name, found[name], self.regions[owner].page_size)
            self.layouts.append(replace(layout, same_as=places[owner]))
        table = json.dumps([layout.to_json() for layout in self.layouts]).encode()
        if len(table) > _MAX_TABLE:
            raise ValueError(
                f"names and element types take {len(table)} bytes in each file: at most {_MAX_TABLE}; give "
                "bytes"
            )
        try:
            check(table, MAX_DESCRIPTION_MEMORY // 2)
        except ValueError as error:
            raise ValueError(f"these are too many regions: {error}") from None
