"""States of torch, compared to the bit, and copied as torch.save does."""

from __future__ import annotations

import collections
import io
from typing import Any

import numpy as np
import torch


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the bit, in values and types."""
    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or (one.dtype, one.shape) != (other.dtype, other.shape):
            return False
        return _bytes(one) == _bytes(other)
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple | collections.deque):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or one != one


def _bytes(tensor: Any) -> bytes:
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.is_quantized:
        return repr((tensor.qscheme(), tensor.dequantize().sum())).encode() + _bytes(tensor.int_repr())
    return bytes(tensor.clone().contiguous().reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else b""


def copied(state: Any) -> Any:
    """What torch.save and torch.load make of a state."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=False)
