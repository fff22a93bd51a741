"""Random states, as bytes that come back exactly."""

from __future__ import annotations

import random
import struct
import sys
from typing import Any

import numpy as np
import torch

_WORDS = struct.Struct("<625I")


class RandomStates:
    """The states of the generators that programs share: Python's, numpy's, torch's, and those of the GPUs."""

    def state_dict(self) -> dict[str, Any]:
        """What they are now; of the GPUs if they are in use."""
        states: dict[str, Any] = {"python": python_state(random), "torch": _to_bytes(torch.get_rng_state())}
        if "numpy.random" in sys.modules:
            states["numpy"] = np.random.get_state()
        if torch.cuda.is_initialized():
            states["cuda"] = [_to_bytes(state) for state in torch.cuda.get_rng_state_all()]
        return states

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Sets them."""
        set_python_state(random, states["python"])
        torch.set_rng_state(_to_tensor(states["torch"]))
        if "numpy" in states:
            np.random.set_state(states["numpy"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([_to_tensor(state) for state in states["cuda"]])


class OneGenerator:
    """The state of one generator of torch, numpy or Python."""

    def __init__(self, generator: torch.Generator | np.random.Generator | random.Random) -> None:
        self._generator = generator

    def state_dict(self) -> dict[str, Any]:
        """What it is now."""
        if isinstance(self._generator, torch.Generator):
            return {"torch": _to_bytes(self._generator.get_state())}
        if isinstance(self._generator, np.random.Generator):
            return {"numpy": self._generator.bit_generator.state}
        return {"python": python_state(self._generator)}

    def misfits(self, name: str, state: Any) -> list[str]:
        """Why it can't take a state."""
        ((kind, own),) = self.state_dict().items()
        if not isinstance(state, dict) or kind not in state:
            return [f"{name} is no generator of {kind} in the chain"]
        if kind == "numpy" and state[kind]["bit_generator"] != own["bit_generator"]:
            return [
                f"{name} is a {state[kind]['bit_generator']} in the chain, and a {own['bit_generator']} here"
            ]
        return []

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Sets it."""
        if isinstance(self._generator, torch.Generator):
            self._generator.set_state(_to_tensor(state["torch"]))
        elif isinstance(self._generator, np.random.Generator):
            self._generator.bit_generator.state = state["numpy"]
        else:
            set_python_state(self._generator, state["python"])


def python_state(generator: Any) -> list[Any]:
    """That of a generator of Python."""
    version, words, gauss = generator.getstate()
    return [version, _WORDS.pack(*words), gauss]


def set_python_state(generator: Any, state: list[Any]) -> None:
    """Sets it."""
    version, words, gauss = state
    generator.setstate((version, _WORDS.unpack(words), gauss))


def _to_bytes(state: torch.Tensor) -> bytes:
    return bytes(state.numpy())


def _to_tensor(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)
