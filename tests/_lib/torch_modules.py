"""Modules of torch of any form."""

from __future__ import annotations

import random
from typing import Any

import torch

DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e5m2]


class AnyModule(torch.nn.Module):
    """A module of random parts: nested, tied, with buffers, views and parameters of any size and order."""

    def __init__(self, draw: random.Random, depth: int = 0) -> None:
        super().__init__()
        for number in range(draw.randint(1, 4)):
            put(self, f"p{number}", draw)
        for number in range(draw.randint(0, 2) if depth < 3 else 0):
            self.add_module(f"m{number}", AnyModule(draw, depth + 1))
        if self._parameters and draw.random() < 0.3:
            self.register_parameter("tied", next(self.parameters()))


def put(module: Any, name: str, draw: random.Random) -> None:
    """Gives a module a tensor under a name: a parameter or a buffer of any type, size and order."""
    shape = [draw.choice([0, 1, 3, 40, 70]) for _ in range(draw.randint(0, 3))]
    tensor = torch.rand(shape).mul(100).to(draw.choice(DTYPES))
    if len(shape) > 1 and draw.random() < 0.3:
        tensor = tensor.transpose(0, 1)
    if shape and shape[0] > 1 and draw.random() < 0.3:
        tensor = tensor[:: draw.choice([1, 2])]
    module._parameters.pop(name, None)
    module._buffers.pop(name, None)
    if draw.random() < 0.5:
        module.register_buffer(name, tensor)
    else:
        floating = tensor.is_floating_point() and tensor.dtype is not torch.float8_e5m2
        module.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=floating))
