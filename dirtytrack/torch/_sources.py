"""What a TorchCheckpointer is given: how its state is asked for, and how it is given back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from dirtytrack.torch._random import OneGenerator, RandomStates
from dirtytrack.torch._tree import NoDataError, Parts, dotted, take_apart

RNG = "rng"

_SHOWN = 8  # keys of a path that goes deep


class Source(Protocol):
    """Something with a state."""

    def state_dict(self) -> Any:
        """The state, which may be in use."""

    def load_state_dict(self, state: Any) -> object:
        """Takes a state over."""


class ContainerSource:
    """A dictionary or a list, which is its own state."""

    def __init__(self, container: dict[Any, Any] | list[Any]) -> None:
        self._container = container

    def state_dict(self) -> Any:
        return self._container

    def misfits(self, name: str, state: Any) -> list[str]:
        """Why it can't take a state."""
        if isinstance(state, type(self._container)):
            return []
        found, there = type(state).__name__, type(self._container).__name__
        return [f"{name} is a {found} in the chain, and a {there} here"]

    def load_state_dict(self, state: Any) -> None:
        if isinstance(self._container, list):
            self._container[:] = state
        else:
            self._container.clear()
            self._container.update(state)


class TensorSource:
    """A tensor, which is its own state."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def state_dict(self) -> torch.Tensor:
        return self._tensor

    def misfits(self, name: str, state: Any) -> list[str]:
        """Why it can't take a state."""
        there = self._tensor
        if isinstance(state, torch.Tensor) and (state.shape, state.dtype) == (there.shape, there.dtype):
            return []
        found = (
            f"{list(state.shape)} {state.dtype}" if isinstance(state, torch.Tensor) else type(state).__name__
        )
        return [f"size mismatch for {name}: {found} in the chain, {list(there.shape)} {there.dtype} here"]

    def load_state_dict(self, state: torch.Tensor) -> None:
        with torch.no_grad():
            self._tensor.copy_(state)


class ModuleSource:
    """A module, with what of it has to be there."""

    def __init__(self, module: torch.nn.Module, strict: bool) -> None:
        self._module = module
        self._strict = strict

    def state_dict(self) -> Any:
        # To detach a tensor writes to what torch has on the heap, most likely to a page of some tensor.
        if type(self._module).state_dict is torch.nn.Module.state_dict:
            return self._module.state_dict(keep_vars=True)
        return self._module.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._module.load_state_dict(state, strict=self._strict)


def states_of(sources: Mapping[str, Source]) -> Parts:
    """The states of all sources, taken apart.

    Raises:
        TypeError: an entry is no data; it is named.
    """
    try:
        return take_apart({name: source.state_dict() for name, source in sources.items()})
    except NoDataError as error:
        path = dotted(error.path[:_SHOWN]) + ("..." if len(error.path) > _SHOWN else "")
        raise TypeError(f"{path} is {error.reason}") from None


def sources_of(things: Mapping[str, object], rng: bool, strict: bool) -> dict[str, Source]:
    """The source of each thing that is not None, random states last.

    Raises:
        TypeError, ValueError: one has no state; it is named.
    """
    if RNG in things:
        raise ValueError("rng is True or False; pass generators under other names")
    sources = {name: _source(name, thing, strict) for name, thing in things.items() if thing is not None}
    if not sources:
        raise ValueError("there is nothing to save: pass model=, optimizer=, or others")
    if not isinstance(rng, bool):
        raise TypeError(f"rng is True or False, not {rng!r}: pass generators under names of their own")
    return {**sources, RNG: RandomStates()} if rng else sources


def _source(name: str, thing: Any, strict: bool) -> Source:
    if isinstance(thing, torch.nn.Module):
        return ModuleSource(thing, strict)
    has_state = callable(getattr(thing, "state_dict", None)) and callable(
        getattr(thing, "load_state_dict", None)
    )
    if has_state and not isinstance(thing, type):
        source: Source = thing
        return source
    if isinstance(thing, torch.Tensor):
        return TensorSource(thing)
    if isinstance(thing, torch.Generator | np.random.Generator | random.Random):
        return OneGenerator(thing)
    if type(thing) in (dict, list):
        return ContainerSource(thing)
    if isinstance(thing, type):
        raise TypeError(f"{name} is the class {thing.__name__}: pass one that is made of it")
    raise TypeError(
        f"{name}={type(thing).__name__} object has no state that can be given back: pass what has "
        "state_dict() and load_state_dict(), a tensor, a generator, or a dict or list. Values go into meta"
    )
