"""A training's checkpoints."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

from dirtytrack._lifetime.closable import Closable
from dirtytrack.checkpoint import Save, Schedule
from dirtytrack.errors import ClosedError
from dirtytrack.torch._opening import open_checkpoints
from dirtytrack.torch._saver import OPTIONS, StateSaver
from dirtytrack.torch._sources import Source, sources_of, states_of


class TorchCheckpointer(Closable):
    """Saves modules, optimizers and whatever else has a state, and resumes with it.

    ``with TorchCheckpointer.open(path, model=model, optimizer=optimizer) as checkpoints:`` starts a chain of
    checkpoints, or finds one and gives everything its newest state back;
    ``checkpoints.save(meta={"step": step})`` saves everything. A run that is killed and started again goes on
    bit for bit as if it had not been, with the random states of Python, numpy and torch.

    Tensors on the CPU are tracked where they lie, so that a save costs what was written since the last one.
    Tensors on a GPU, those that are not dense, and what else can't be tracked are copied by each save, and
    stored where they differ from the last one. A storage that was replaced, a state that appears, a parameter
    that was added are found by the next save. All methods may be called from any thread; they take turns.
    """

    def __init__(self, sources: Mapping[str, Source], saver: StateSaver) -> None:
        """Use `open`."""
        self._sources = sources
        self._saver = saver
        self._checkpoints = saver.checkpoints
        self._mutex = threading.RLock()

    @classmethod
    def open(
        cls,
        path: Any,
        *,
        model: Any = None,
        optimizer: Any = None,
        scheduler: Any = None,
        rng: bool = True,
        at: int | str | None = None,
        strict: bool = True,
        **others: Any,
    ) -> Self:
        """Starts a chain, or gives everything the state that the one there has, and goes on with it.

        Args:
            path: as for `Checkpointer`.
            model: anything with ``state_dict`` and ``load_state_dict``. So are *optimizer* and *scheduler*.
            optimizer: its state need not be there yet: what the chain has is loaded.
            scheduler: as they are made before a training; their state is loaded, too.
            rng: whether the random states of Python, numpy, torch and the GPUs in use are saved, and set.
            at: the checkpoint to go on from, by number or identifier. None: the newest.
            strict: whether the chain has to have all that is given here, and no more, and of modules all keys
                and no others. If False, what is missing stays as it is.
            **others: more of the same by name: what has ``state_dict`` and ``load_state_dict``, tensors,
                generators, and dictionaries and lists of data, which are changed in place. And keywords of
                `Checkpointer`, such as keep, compression, store_options or mirror.

        Raises:
            TypeError, ValueError: something has no state, or an entry of a state is no data or can't be
                saved; it is named. Nothing was touched.
            ChainError: the chain does not fit; what is missing, unexpected, or of another shape is listed,
                and nothing was touched. Or it can't be read.
            Others: as for `Checkpointer`, and whatever a ``load_state_dict`` raises.
        """
        options = {name: others.pop(name) for name in OPTIONS & others.keys()}
        things = {"model": model, "optimizer": optimizer, "scheduler": scheduler, **others}
        sources = sources_of(things, rng, strict)
        return cls(sources, open_checkpoints(path, sources, at, strict, options))

    @property
    def meta(self) -> Any:
        """The meta of the newest committed save, or until then of the resumed checkpoint; None without."""
        return self._checkpoints.meta

    @property
    def resumed(self) -> bool:
        """Whether it goes on with a chain that was there, and so has given everything its state."""
        return self._checkpoints.resumed

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._checkpoints.closed

    def save(
        self, meta: Any = None, *, wait: bool = False, pause: AbstractContextManager[object] | None = None
    ) -> Save:
        """Captures everything as it is now; a thread writes it.

        After the first save each is a delta of what was written. Where tensors came or got other memory, it
        has all of them that is new.

        Args:
            meta: as for `Checkpointer.save`.
            wait: the same.
            pause: the same; what is not tracked where it lies is copied before it.

        Raises:
            TypeError, ValueError: an entry of a state is no data or can't be saved; it is named. Nothing was
                saved.
            Others: as for `Checkpointer.save`.
        """
        with self._mutex:
            return self._saver.save(states_of(self._sources), meta, wait=wait, pause=pause)

    def save_every(
        self, *, steps: int | None = None, seconds: float | None = None, sigterm: bool = False
    ) -> Schedule:
        """Makes a schedule, to be called once a step, as `Checkpointer.save_every` does."""
        return Schedule(self, steps, seconds, sigterm)

    def flush(self) -> None:
        """Waits until everything captured is committed, as `Checkpointer.flush` does."""
        self._checkpoints.flush()

    def compact(self, *, wait: bool = False) -> None:
        """Shortens the chain, as `Checkpointer.compact` does."""
        self._checkpoints.compact(wait=wait)

    def retain(self, checkpoints: Iterable[str]) -> None:
        """Says which checkpoints must not be removed, as `Checkpointer.retain` does."""
        self._checkpoints.retain(checkpoints)

    def close(self) -> None:
        """Commits what was captured, and gives the directory up, as `Checkpointer.close` does; idempotent."""
        self._checkpoints.close()

    def _check(self) -> None:
        if self.closed:
            raise ClosedError(f"{self!r} is closed: open it again")

    def __repr__(self) -> str:
        return f"<dirtytrack.torch.TorchCheckpointer of {', '.join(self._sources)}: {self._checkpoints!r}>"
