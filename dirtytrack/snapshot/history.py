"""Many states of the same memory, and the way from any to any."""

from __future__ import annotations

import functools
from typing import Any

from dirtytrack._lifetime.handle import Handle
from dirtytrack._lifetime.listing import values_of
from dirtytrack._lifetime.turns import in_turn
from dirtytrack.errors import KernelError
from dirtytrack.native import ffi, lib
from dirtytrack.snapshot._changes import Changes, check_byte_count
from dirtytrack.snapshot._tracked_set import TrackedSet
from dirtytrack.snapshot.diff import Diff
from dirtytrack.tracking import NativeEpoch, Session

_new = ffi.new_allocator(lib.dt_history_new, lib.dt_history_free, should_clear_after_alloc=False)


class State(Handle):
    """A state of a history, made by `History.save`.

    Attributes:
        history: the history that it belongs to.
        number: 1 for the first one; grows with every save.
    """

    __slots__ = ("_identifier", "_parent", "history", "number")

    def __init__(self, history: History, identifier: int, number: int, parent: tuple[int, int]) -> None:
        self.history = history
        self._identifier = identifier
        self.number = number
        self._parent = parent  # identifier and number

    @property
    def parent(self) -> State | None:
        """The state that memory was in before, or None: for the first one, and once that is dropped."""
        return self.history._state(*self._parent)

    @property
    def dropped(self) -> bool:
        """Whether it can't be restored any more: it was dropped, or gave way to newer ones."""
        return self.history._has_dropped(self)

    def __repr__(self) -> str:
        return f"<State {self.number} of {self.history!r}{', dropped' * (not self.history._knows(self))}>"


class History(TrackedSet):
    """A tree of states of memory: any of them can be brought back, from any other.

    ``a = history.save()`` costs the pages that were written since the state before it, ``history.restore(a)``
    those in which memory differs from it, however many states lie between. States share what they have in
    common, pages of zeros take nothing. A context manager, which closes it and forgets the states.

    What is written after a restore belongs to a branch from there. What threads write during a save may be in
    the state in part; all of it is in the next one. A store beside a restore is undone, or stays and
    is pending, as with `Snapshot.rollback`. All methods may be called from any thread; they take turns.
    """

    def __init__(self, session: Session | None, *memories: object, max_nbytes: int | None = None) -> None:
        """Begins a history without states; `save` makes the first one.

        Args:
            session: as for `Snapshot`.
            *memories: likewise.
            max_nbytes: how much memory all states may take, `nbytes`: a save that goes beyond it drops the
                oldest ones. The newest always stays, so this should be more than the memory has. None, the
                default: no limit.

        Raises:
            TypeError, ValueError: *max_nbytes* is no number of bytes.
            Others: as for `Snapshot`.
        """
        self._most = None if max_nbytes is None else check_byte_count("max_nbytes", max_nbytes)
        super().__init__(session, memories)

    def _prepare(self) -> None:
        self._native: Any = _new("struct dt_history *")
        error = lib.dt_history_open(
            self._native, self._consumer.extents, len(self.regions), self._apart, self._maps.fileno()
        )
        if error:
            raise self._consumer.error(error)
        self._states: dict[int, State] = {}
        self._claims: dict[object, int] = {}  # identifiers, by who is about to save or drop that state

    def _forget(self) -> None:
        self._states.clear()
        ffi.release(self._native)

    @property
    @in_turn
    def states(self) -> tuple[State, ...]:
        """The states that can be restored, in the order in which they were saved."""
        held = [state for state in values_of(self._states) if self._holds(state)]
        return tuple(sorted(held, key=lambda state: state.number))

    @property
    @in_turn
    def current(self) -> State | None:
        """The state last saved or restored; None before the first one, and when it was dropped."""
        return None if self._closed else self._states.get(self._native.current)

    @property
    @in_turn
    def nbytes(self) -> int:
        """Bytes of memory that the states take, all together: contents of pages, and the trees over them.

        What dropped states took is kept for later ones, as far as it is not more than this.
        """
        return 0 if self._closed else lib.dt_history_bytes(self._native)

    @in_turn
    def save(self) -> State:
        """Saves what is in memory now as a state.

        The first one costs reading all of the memory that is populated. With *max_nbytes*, the oldest states
        are dropped afterwards; the states take more for as long as that.

        Raises:
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.collect`, or there is no
                memory for it (ENOMEM). There is no new state, and nothing is lost.
            KernelError: some of what was written can't be read now, as for `Snapshot.diff`; the first time,
                some of all.
        """
        self._check()
        native = self._native
        epoch = NativeEpoch()
        claim = object()
        try:
            identifier = self._claim(claim)
            # In the books before it exists, so that an interrupt leaves no state that nobody knows of.
            state = self._states[identifier] = State(self, identifier, native.saves + 1, (0, 0))
            save = functools.partial(lib.dt_history_save, native)
            self._consumer.run(epoch, save, self._consumer.slices, identifier, epoch.native)
            saved = native.saved[identifier]
            if saved.number:  # else it was dropped already, by the handler of a signal
                state.number, state._parent = saved.number, (saved.parent, saved.parent_number)
            self._make_room()
        finally:
            self._claims.pop(claim, None)
        return state

    def _make_room(self) -> None:
        native = self._native
        while self._most is not None and lib.dt_history_bytes(native) > self._most:
            if native.oldest == native.newest:
                break
            self._drop(native.oldest)

    def _drop(self, identifier: int) -> None:
        lib.dt_history_drop(self._native, identifier)
        self._states.pop(identifier, None)

    def _claim(self, claim: object) -> int:
        # An identifier that no state has, nor will get from a save within this one.
        identifier = int(lib.dt_history_unused(self._native))
        while True:
            if identifier not in self._claims.values():
                self._claims[claim] = identifier
                if not lib.dt_history_has(self._native, identifier):
                    return identifier
            identifier += 1

    @in_turn
    def restore(self, state: State) -> int:
        """Brings memory to a state; returns how many pages were written.

        What was written since the last save or restore is undone, unless it was saved. Pages are re-armed
        afterwards. The other cursors of the session find them in their next epoch.

        Raises:
            ValueError: a state of another history, or one that was dropped. Nothing was written.
            RegionLostError, ClosedError, ForkedError, KernelError: as `Cursor.collect`. The memory may be
                brought there in part; another restore goes on.
            KernelError: some of it can't be written now, as for `Snapshot.rollback`.
        """
        self._check()
        self._check_state(state)
        native, epoch, taken = self._native, NativeEpoch(), NativeEpoch()
        restore = functools.partial(lib.dt_history_restore, native)
        pages = ffi.new("uint64_t *")
        arguments = self._consumer.slices, state._identifier, epoch.native, taken.native, pages
        claim = object()
        try:
            self._claims[claim] = state._identifier  # from here on no save within this call gets it
            self._check_state(state)
            self._consumer.run(taken, restore, *arguments)
        except KernelError:
            self._check_state(state)
            raise
        finally:
            self._claims.pop(claim, None)
        return int(pages[0])

    @in_turn
    def drop(self, state: State) -> None:
        """Forgets a state, and frees what no other state needs. Its children stay.

        What becomes free is used for later states; beyond as much as is in use it goes back to the system,
        by the MiB.

        Raises:
            ValueError: a state of another history, or one that was dropped already.
        """
        self._check()
        self._check_state(state)
        identifier, claim = state._identifier, object()
        try:
            self._claims[claim] = identifier  # from here on no save within this call gets it
            self._check_state(state)
            self._drop(identifier)
        finally:
            self._claims.pop(claim, None)

    @in_turn
    def diff(self, before: State, after: State, *, gap: int = 0, max_nbytes: int | None = None) -> Diff:
        """Returns what differs between two states, to the byte; it costs the pages in which they differ.

        Memory is not looked at, and may differ from both.

        Args:
            before: the state from which the diff leads.
            after: the state to which it leads.
            gap: as for `Snapshot.diff`.
            max_nbytes: likewise.

        Raises:
            DiffError: it would take more than that.
            ValueError: a state of another history, or one that was dropped.
            ClosedError, ForkedError: as `save`.
        """
        self._check()
        changes = Changes(gap, max_nbytes)
        first, second = object(), object()
        try:
            self._check_state(before)
            self._claims[first] = before._identifier  # from here on no save within this call gets it
            self._check_state(after)
            self._claims[second] = after._identifier
            self._check_state(before)
            arguments = before._identifier, after._identifier, changes.native, changes.how
            if lib.dt_history_diff(self._native, *arguments):
                self._check_state(before)
                self._check_state(after)
        finally:
            self._claims.pop(first, None)
            self._claims.pop(second, None)
        changes.check()
        return Diff._of(self._sizes, changes)

    @in_turn
    def _has_dropped(self, state: State) -> bool:
        return not self._holds(state)

    def _state(self, identifier: int, number: int) -> State | None:
        state = self._states.get(identifier)
        return state if state is not None and state.number == number else None

    def _knows(self, state: State) -> bool:
        return self._states.get(state._identifier) is state

    def _holds(self, state: State) -> bool:
        return (
            not self._closed
            and self._knows(state)
            and lib.dt_history_has(self._native, state._identifier) == 1
        )

    def _check_state(self, state: State) -> None:
        if not isinstance(state, State):
            raise TypeError(f"a state is what save() returned, not {state!r}")
        if state.history is not self:
            raise ValueError(f"state {state.number} is one of another history")
        if not self._holds(state):
            raise ValueError(
                f"state {state.number} was dropped, or gave way to newer ones (max_nbytes): it is gone"
            )

    def __repr__(self) -> str:
        what = "closed" if self._closed else f"{len(self._states)} states"
        return f"<dirtytrack.snapshot.History: {what}>"
