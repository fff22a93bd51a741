"""Reading the states of a group, whole or a part of one, anywhere."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from dirtytrack.checkpoint import Chain, Layout, Problem, restore
from dirtytrack.checkpoint.records import Root, StoreOptions
from dirtytrack.errors import ChainError
from dirtytrack.group.record import Part, Record
from dirtytrack.group.records import Records
from dirtytrack.tracking import alloc

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class GroupCheckpoint:
    """A state of a group.

    Attributes:
        number: grows along the group.
        created: when it was committed, in seconds since 1970.
        world: how many processes saved it; 0: a driver's.
        names: of its regions, sorted.
        parts: what each process has of it: folder, identifier and number of its checkpoint, and names.
    """

    number: int
    created: float
    world: int
    names: tuple[str, ...]
    parts: tuple[Part, ...] = field(repr=False)
    _meta: str = field(repr=False)

    @classmethod
    def _of(cls, record: Record) -> Self:
        return cls(
            record.number,
            record.created,
            record.world,
            tuple(sorted(name for part in record.parts for name in part.names)),
            record.parts,
            json.dumps(record.meta),
        )

    @property
    def meta(self) -> Any:
        """The meta that was given to the save; a new copy at each access."""
        return json.loads(self._meta)

    def part_of(self, name: str) -> Part:
        """The part that has a region.

        Raises:
            ChainError: none has.
        """
        for part in self.parts:
            if name in part.names:
                return part
        raise ChainError(f"state {self.number} has no region {name!r}. It has {', '.join(self.names[:8])}")


class GroupChain:
    """The states of a group, for reading. A collection of `GroupCheckpoint`.

    It knows the newest state when it is made, by a few requests. The older ones are read, many at a time,
    when they are asked for. What is read of states is checked then.
    """

    def __init__(self, path: os.PathLike[str] | str, *, store_options: StoreOptions | None = None) -> None:
        """Reads the newest records of a group in a directory, or at a URL; with *mirror*, at that.

        Args:
            path: of the group.
            store_options: of a URL, as for `Checkpointer`.

        Raises:
            ChainError: there is no state of a group.
            OSError: as the place says.
        """
        self._root = Root.of(path, store_options)
        self._records = Records(self._root.bucket())
        self._last = self._records.newest()
        state = self._records.find(self._last.state) if self._last is not None and self._last.state else None
        if state is None or state.kind != "committed":
            raise ChainError(f"{self._root.place} holds no state of a group")
        self._newest = GroupCheckpoint._of(state)
        self._damaged: frozenset[int] = frozenset()

    @staticmethod
    def is_at(path: os.PathLike[str] | str, *, store_options: StoreOptions | None = None) -> bool:
        """Whether there is a group at a place, with states or without.

        Raises:
            OSError: as the place says; none if there is nothing.
        """
        bucket = Root.of(path, store_options).bucket()
        return bool(bucket.first_page("records/"))

    @property
    def path(self) -> str:
        """The directory, or the URL."""
        return str(self._root.place)

    @property
    def checkpoints(self) -> tuple[GroupCheckpoint, ...]:
        """The states, by number.

        Raises:
            OSError, ChainError: as when it was made.
        """
        return self._states

    @functools.cached_property
    def _states(self) -> tuple[GroupCheckpoint, ...]:
        found = tuple(GroupCheckpoint._of(one) for one in self._records.states(self._last))
        return found or (self._newest,)  # which was removed meanwhile

    @property
    def newest(self) -> GroupCheckpoint:
        """The state with the greatest number."""
        return self._newest

    @property
    def meta(self) -> Any:
        """The meta of the newest state."""
        return self.newest.meta

    @property
    def damaged(self) -> frozenset[int]:
        """Numbers of the states that can't be restored as a whole, as far as `verify` has found."""
        return self._damaged

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[GroupCheckpoint]:
        return iter(self._states)

    def __getitem__(self, at: int) -> GroupCheckpoint:
        """The state of that number.

        Raises:
            ChainError: there is none.
        """
        if at == self._newest.number:
            return self._newest
        for state in self._states:
            if state.number == at:
                return state
        there = ", ".join(str(state.number) for state in self._states[-10:])
        raise ChainError(f"{self.path} has no state {at}; it has {there}")

    def load(self, name: str, at: int | None = None) -> np.ndarray[Any, Any]:
        """A region as a new array, page-aligned and writable, whichever process saved it.

        Args:
            name: of the region.
            at: the number of the state. None: the newest.

        Raises:
            ChainError: there is none, or it can't be read; it says which file and why.
            ImportError: without numpy.
            OSError: as for `Chain`.
        """
        part = self._at(at).part_of(name)
        with self.open_part(part) as chain:
            layout = next(one for one in chain[part.id].regions if one.name == name)
        return self._array(part, layout)

    def restore(self, *, into: Mapping[str, object], at: int | None = None) -> Any:
        """Writes regions into memory, whichever processes saved them; returns the meta.

        Args:
            into: memory by name, as for `restore` of a chain.
            at: the number of the state. None: the newest.

        Raises:
            ChainError: a region is not there, or does not fit, or can't be read.
            Others: as for `restore`.
        """
        state = self._at(at)
        parts = {name: state.part_of(name) for name in into}
        for part in state.parts:
            mine = {name: into[name] for name in part.names if name in parts}
            if mine:
                self._restore(part, mine)
        return state.meta

    def verify(self) -> list[Problem]:
        """Reads everything, and returns what is damaged; a file has its place below the group's before it.

        `damaged` has the states that this costs. A record that is damaged costs the state that it committed,
        which is in no list then.

        Raises:
            OSError: as for `Chain`.
        """
        problems = [Problem(*one) for one in self._records.unreadable(self._last)]
        damaged: set[int] = set()
        for folder, wanted in self._folders().items():
            try:
                with Chain(self._root.below(folder), store_options=self._root.options) as chain:
                    chain.verify()
                    problems += [Problem(f"{folder}/{one.file}", one.reason) for one in chain.problems]
                    there = {one.id for one in chain}
            except (ChainError, FileNotFoundError) as error:
                problems.append(Problem(f"{folder}/", str(error)))
                damaged.update(number for numbers in wanted.values() for number in numbers)
                continue
            for identifier, numbers in wanted.items():
                if identifier not in there:
                    damaged.update(numbers)
                    problems += [
                        Problem(
                            f"{folder}/", f"state {number} needs checkpoint {identifier}, which can't be read"
                        )
                        for number in numbers
                    ]
        self._damaged = frozenset(damaged)
        return problems

    def open_part(self, part: Part) -> Chain:
        """The chain of a process, in which `Part.id` is its checkpoint. It raises what `Chain` raises."""
        return Chain(self._root.below(part.folder), store_options=self._root.options)

    def _folders(self) -> dict[str, dict[str, list[int]]]:
        # The numbers of the states by the checkpoints that they need.
        found: dict[str, dict[str, list[int]]] = {}
        for state in self._states:
            for part in state.parts:
                found.setdefault(part.folder, {}).setdefault(part.id, []).append(state.number)
        return found

    def _array(self, part: Part, layout: Layout) -> np.ndarray[Any, Any]:
        memory = alloc(layout.nbytes) if layout.nbytes else bytearray()
        self._restore(part, {layout.name: memory})
        return layout.array(memory)

    def _restore(self, part: Part, into: Mapping[str, object]) -> None:
        restore(self._root.below(part.folder), into=into, at=part.id, store_options=self._root.options)

    def _at(self, at: int | None) -> GroupCheckpoint:
        return self.newest if at is None else self[at]

    def __repr__(self) -> str:
        if not hasattr(self, "_newest"):  # where a repr of its opening is taken
            return "<dirtytrack.group.GroupChain: not open>"
        return f"<dirtytrack.group.GroupChain in {self.path}: newest state {self.newest.number}>"
