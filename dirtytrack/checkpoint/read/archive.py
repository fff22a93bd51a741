"""All files of a chain, open, and the states that they make up: what readers and writers stand on."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple, TypeVar

from dirtytrack.checkpoint.format.structures import FileName, FormatError
from dirtytrack.checkpoint.read.checkpoint_file import CheckpointFile, Layouts
from dirtytrack.checkpoint.read.lineage import Node, Nodes, arrange, first_few_of, table_of
from dirtytrack.checkpoint.read.opening import Opened, open_files, open_newest
from dirtytrack.checkpoint.read.state import DamagedFile, State
from dirtytrack.checkpoint.store import Place, open_store
from dirtytrack.checkpoint.store.protocol import DCP_FOLDERS, GROUP_FOLDERS, FileRemovedError, Store
from dirtytrack.checkpoint.store.urls import StoreOptions
from dirtytrack.errors import ChainError

_OPENINGS = 10  # at most, beside a writer that compacts all the time
_STATES = 2  # kept, for who compares two

_logger = logging.getLogger("dirtytrack.checkpoint")
_T = TypeVar("_T")


class Problem(NamedTuple):
    """A file that is named like one of the chain's and can't be used.

    Attributes:
        file: its name.
        reason: what is wrong with it, or with what it stands on.
    """

    file: str
    reason: str

    @property
    def number(self) -> int:
        """Of the checkpoint, as the name has it; 0: it is no checkpoint's, but a commit's."""
        head = self.file.partition("-")[0]
        return int(head) if head.isdecimal() else 0

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class Archive:
    """The files of a chain as they were when it was made. For one thread at a time.

    Of so many files that not all can be kept open, reading one that was removed is a FileRemovedError.

    What turns out damaged is not used any more, nor is what stands on it.

    Attributes:
        store: where they are.
    """

    def __init__(self, store: Store, undo: ExitStack, *, newest: bool = False) -> None:
        """Opens them.

        Args:
            store: where they are.
            undo: closes them.
            newest: whether the files of the newest state will most likely do, where the store knows them. The
                others are then opened when anything else is asked for.

        Raises:
            ChainError: there is none at all, or those of more than one history.
            OSError: the store can't be listed, or a file not be opened, and it is not the file's fault.
        """
        self.store = store
        self._undo = undo
        self._states: dict[Node, State] = {}  # those read last, in this order
        self._files: list[CheckpointFile] = []
        self._damaged: dict[FileName, str] = {}
        self._commits: list[Problem] = []
        self._nodes: Nodes = {}
        opened = open_newest(store, undo) if newest else None
        self._is_partial = opened is not None
        self._take(opened or open_files(store, undo))
        if self._is_partial and not self._nodes:
            self._complete()

    @property
    def id(self) -> str | None:
        """Identifier of the chain; None where no file is intact."""
        return self._files[0].header.chain.hex() if self._files else None

    @property
    def greatest_number(self) -> int:
        """The greatest number that any file claims, whether it can be used or not."""
        names = self.store.newest_names()
        return FileName.among(self.store.names() if names is None else names)[-1].number

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The states whose files are all there and intact as far as is known, by number."""
        self._complete()
        return tuple(self._nodes.values())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The files that can't be used, by number; behind them commits that `verify` found damaged."""
        self._complete()
        found = {**self._damaged, **self._misfits}
        return (*(Problem(str(name), found[name]) for name in sorted(found)), *self._commits)

    @property
    def newest(self) -> Node:
        """The state with the greatest number.

        Raises:
            ChainError: there is none; it says why.
        """
        if not self._nodes:
            self._complete()
        if not self._nodes:
            raise ChainError(
                f"{self.store.place} holds no complete checkpoint. {first_few_of(self.problems)}"
            )
        return next(reversed(self._nodes.values()))

    def has(self, identifier: str) -> bool:
        """Whether the state of that identifier can be read, as far as is known."""
        self._complete()
        return identifier in self._nodes

    def find(self, at: int | str) -> Node:
        """The state with that number or identifier.

        Raises:
            TypeError: it is neither.
            ChainError: there is none, or it is not complete; it says why.
        """
        if isinstance(at, bool) or not isinstance(at, int | str):
            raise TypeError(f"a checkpoint is called by its number or its identifier, not by {at!r}")
        if not (isinstance(at, str) and at in self._nodes):
            self._complete()
        found = self._nodes.get(at) if isinstance(at, str) else self._numbered.get(at)
        if found is not None:
            return found
        there = first_few_of(node.number for node in self.nodes) or "none"
        reasons = first_few_of(problem for problem in self.problems if problem.number == at)
        message = f"{self.store.place} has no complete checkpoint {at}; it has {there}. {reasons}"
        raise ChainError(message.rstrip())

    def nodes_of(self, at: int | str | None) -> list[Node]:
        """The state *at* with those that its file stands on, or if that is None all; these come first.

        Raises:
            ChainError: there is no such state, or none at all.
        """
        if at is not None:
            return self.find(at).stack()
        _ = self.newest  # or there is none
        return [*self.nodes]

    def lineage(self, node: Node) -> list[Node]:
        """It and those that it followed, as far as they are there and known; the oldest first."""
        nodes = [node]
        while (parent := nodes[-1].parent) in self._nodes:
            nodes.append(self._nodes[parent])
        return nodes[::-1]

    def find_regions(self, layouts: Layouts, names: Sequence[str]) -> list[int]:
        """The places of regions in a table.

        Raises:
            ChainError: there is none of one of these names.
        """
        places = {layout.name: place for place, layout in enumerate(layouts)}
        for name in names:
            if name not in places:
                raise ChainError(
                    f"the chain in {self.store.place} has no region {name!r}. It has {first_few_of(places)}"
                )
        return [places[name] for name in names]

    def read(self, node: Node, action: Callable[[State], _T]) -> _T:
        """What *action* makes of a state.

        If a file turns out damaged, another way to the same state is tried, if there is one; so *action* may
        be called more than once.

        Raises:
            ChainError: the state can't be read; it names the file.
        """
        while True:
            node = self._nodes.get(node.id) or self.find(node.id)
            try:
                return action(self._state(node))
            except DamagedFile as damage:
                self._states.clear()
                self._exclude(damage)
                if node.id not in self._nodes:
                    where = self.store.locate(str(damage.file.name))
                    raise ChainError(f"checkpoint {node.number} can't be read: {where}: {damage}") from damage

    def _state(self, node: Node) -> State:
        state = self._states.pop(node, None)
        if state is None:
            while len(self._states) >= _STATES:
                del self._states[next(iter(self._states))]
            state = State(node)
        self._states[node] = state
        return state

    def read_at(self, at: int | str | None, action: Callable[[State], _T]) -> tuple[Node, _T]:
        """What *action* makes of the state *at*, or if that is None of the newest one that turns out intact.

        Raises:
            ChainError: there is none.
        """
        if at is not None:
            node = self.find(at)
            return node, self.read(node, action)
        while True:
            node = self.newest
            try:
                result = self.read(node, action)
            except ChainError:
                if node.id in self._nodes:
                    raise  # it is not the files
                continue
            newer = [] if self._is_partial else [one for one in self.problems if one.number >= node.number]
            if newer:
                _logger.warning(
                    "%s: checkpoint %d was read; newer files can't be: %s",
                    self.store.place,
                    node.number,
                    first_few_of(newer),
                )
            return node, result

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Reads everything; what is wrong is in `problems` then.

        Args:
            progress: is told the bytes of files done, and in all.
        """
        total = sum(file.nbytes for file in self._files)
        done = 0
        self._commits = [Problem(*one) for one in self.store.unreadable()]

        def tell(count: int) -> None:
            if progress is not None:
                progress(done + count, total)

        for file in self._files:
            self.check(file, tell)
            done += file.nbytes
            tell(0)

    def check(self, file: CheckpointFile, progress: Callable[[int], None]) -> bool:
        """Reads all of a file, and says whether it is intact; *progress* is told the bytes done."""
        below = None if file.layouts else self._nodes.get(file.header.parent.hex())
        try:
            layouts, _ = table_of(file, below)  # nothing, if what it stands on is not there
            for count in file.verify(layouts) if layouts else ():
                progress(count)
        except FormatError as error:
            self._exclude(DamagedFile(file, str(error)))
            return False
        except MemoryError:
            raise MemoryError(f"{file.name} has regions of too many bytes to check") from None
        return True

    def _exclude(self, damage: DamagedFile) -> None:
        self._complete()  # for another way to the same states
        self._files = [file for file in self._files if file.name != damage.file.name]
        self._damaged[damage.file.name] = str(damage)
        self._arrange()

    def _complete(self) -> None:
        if self._is_partial:
            self._is_partial = False
            self._take(open_files(self.store, self._undo))

    def _take(self, opened: Opened) -> None:
        self._files, self._damaged, self._gone = opened
        self._arrange()
        if not self._is_partial:
            self._check_history()

    def _arrange(self) -> None:
        self._nodes, misfits = arrange(self._files)
        self._numbered = {node.number: node for node in self._nodes.values()}
        self._misfits = {name: reason for name, reason in misfits.items() if name not in self._gone}

    def _check_history(self) -> None:
        # Which of two histories is meant is not for us to guess.
        place = self.store.place
        if not self._files and not self._damaged:
            told = ""
            if self.store.has_folders(GROUP_FOLDERS):
                told = " of one process: a group has saved there, which GroupChain reads"
            elif self.store.has_folders(DCP_FOLDERS):
                told = " of its own: where a DcpWriter has saved, each rank has a chain in a folder below it"
            raise ChainError(f"{place} holds no checkpoint{told}")
        chains: dict[bytes, list[FileName]] = {}
        for file in self._files:
            chains.setdefault(file.header.chain, []).append(file.name)
        if len(chains) > 1:
            files = "; of another ".join(map(first_few_of, chains.values()))
            raise ChainError(
                f"{place} holds files of several chains: of one {files}. Move the foreign ones away"
            )
        for older, newer in itertools.pairwise(self._nodes.values()):
            if older.number == newer.number:
                raise ChainError(
                    f"{place} holds two different checkpoints {newer.number}, {older.file.name} and "
                    f"{newer.file.name}: two copies of the chain were continued. Move the files of one away"
                )


def disk_usage(store: Store) -> dict[str, int]:
    """The bytes that each file of a chain takes now, by name, those that are not completed among them."""
    return {
        usage.name: usage.nbytes
        for usage in store.usage()
        if usage.is_unfinished or FileName.parse(usage.name)
    }


def read_from(place: Place, action: Callable[[Archive], _T], *, options: StoreOptions | None = None) -> _T:
    """What *action* makes of the archive at a place; most likely of the newest state alone.

    If a file is removed that could not be kept open, it is called anew with what replaced it.

    Raises:
        As `opened`, and *action*.
    """
    for _ in range(_OPENINGS):
        with suppress(FileRemovedError), opened(place, newest=True, options=options) as archive:
            return action(archive)
    with opened(place, newest=True, options=options) as archive:
        return action(archive)


@contextmanager
def opened(place: Place, *, newest: bool = False, options: StoreOptions | None = None) -> Iterator[Archive]:
    """The archive at a place, until the block ends; *newest* as `Archive` has it.

    Raises:
        As `open_store` and `Archive`.
    """
    with ExitStack() as undo:
        yield Archive(open_store(place, undo, options=options), undo, newest=newest)
