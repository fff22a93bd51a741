"""Modules and optimizers as regions with names, and a step that is taken back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from dirtytrack._lifetime.closable import Closable
from dirtytrack.errors import ClosedError
from dirtytrack.objects import tensors_of
from dirtytrack.snapshot import Diff, Snapshot
from dirtytrack.tracking import Region, Session, default_session


def track_module(
    session: Session | None, module: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Region]:
    """Tracks the tensors of a module, and of an optimizer, each as a region with its name.

    A parameter is called as in ``module.named_parameters()``, a buffer as in ``named_buffers()``, and a
    tensor of an optimizer's state "optimizer.weight.exp_avg", by the parameter that it belongs to. Tied ones
    are tracked once, under the first name; empty ones are not. The optimizer's state has to be there: most
    make it in their first step.

    Args:
        session: the session, or None for `default_session`.
        module: whose tensors lie on the CPU.
        optimizer: of its parameters.

    Returns:
        The regions by name. ``session.untrack`` ends the tracking of one.

    Raises:
        TypeError, ValueError: a tensor can't be tracked; it is named, and nothing is tracked.
        Others: as for `Session.track`.
    """
    session = default_session() if session is None else session
    regions: dict[str, Region] = {}
    with ExitStack() as undo:
        for name, tensor in _named(module, optimizer).items():
            try:
                region = regions[name] = session.track(tensor, name=name)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from None
            undo.callback(session.untrack, region)
        undo.pop_all()
    return regions


class ModuleSnapshot(Closable):
    """A module, and an optimizer, as they are now, to go back to: a step is tried, and taken back.

    ``with ModuleSnapshot(model, optimizer) as snap: ...; snap.rollback()``. A rollback costs the pages that
    were written. It puts the optimizer's learning rates and its other values back, too, takes away state that
    it had not got, and tells autograd that the tensors were written, so that a backward pass through what
    they were is an error and not a wrong gradient.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        session: Session | None = None,
    ) -> None:
        """Copies them.

        Raises:
            OSError: there is no memory for the copy.
            Others: as for `track_module`.
        """
        self._tensors = _named(module, optimizer)
        self._optimizer = optimizer
        self._undo = ExitStack()
        with ExitStack() as undo:
            regions = track_module(session, module, optimizer)
            for region in regions.values():
                undo.callback(region.session.untrack, region)
            self._snapshot = undo.enter_context(Snapshot(None, *regions.values()))
            self._undo = undo.pop_all()
        self._keep()

    def diff(self, **keywords: Any) -> Diff:
        """What differs now, to the byte, as `Snapshot.diff` says; regions have the names of the tensors."""
        return self._snapshot.diff(**keywords)

    def rollback(self) -> int:
        """Makes them what they were, and returns how many pages were written back.

        Raises:
            RegionLostError: a tensor has other memory than it had.
            Others: as for `Snapshot.rollback`.
        """
        pages = self._snapshot.rollback()
        torch.autograd.graph.increment_version(list(self._tensors.values()))
        if self._optimizer is not None:
            for group, values in zip(self._optimizer.param_groups, self._groups, strict=True):
                group.update(copy.deepcopy(values))
            for parameter in [one for one in self._optimizer.state if one not in self._states]:
                del self._optimizer.state[parameter]
            for parameter, values in self._states.items():
                self._optimizer.state[parameter].update(copy.deepcopy(values))
        return pages

    def advance(self) -> int:
        """Makes the copy what they are now, and returns how many pages were copied, as `Snapshot.advance`."""
        pages = self._snapshot.advance()
        self._keep()
        return pages

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._snapshot.closed

    def close(self) -> None:
        """Gives the copy up, and ends the tracking; idempotent."""
        self._undo.close()

    def _check(self) -> None:
        if self.closed:
            raise ClosedError("this ModuleSnapshot is closed: make another one")

    def _keep(self) -> None:
        # Of the optimizer what is no tensor.
        optimizer = self._optimizer
        self._groups = [] if optimizer is None else [_plain(group) for group in optimizer.param_groups]
        self._states = {} if optimizer is None else {p: _plain(state) for p, state in optimizer.state.items()}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: copy.deepcopy(value)
        for name, value in values.items()
        if name != "params" and not isinstance(value, torch.Tensor)
    }


def _named(module: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, torch.Tensor]:
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"this takes a torch.nn.Module, not a {type(module).__name__}")
    found = tensors_of(module)
    if optimizer is not None:
        names = {parameter: name for name, parameter in found.items()}
        places = {p: i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
        for parameter, state in optimizer.state.items():
            owner = names.get(parameter, str(places.get(parameter)))
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.numel():
                    found[f"optimizer.{owner}.{name}"] = value
    if not found:
        raise ValueError("the module has no tensor with elements: there is nothing to track")
    return found
