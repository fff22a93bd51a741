"""Whether tensors are what they were, and where they were: each save asks it of thousands of them.

So nothing is kept that is made on the way, and nothing counts references to a tensor: torch does that on the
heap, on whose pages tensors lie.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from itertools import compress
from typing import Any

import torch

from dirtytrack.torch._leaves import quantizer

try:  # the compiler's, which torch has for itself: one native call for all of the tensors
    from torch._C._dynamo.guards import TensorGuards
except ImportError:
    TensorGuards = None

_address, _shape, _dtype = torch.Tensor.data_ptr, torch.Tensor.size, torch.Tensor.dtype.__get__
_is_contiguous, _is_negated = torch.Tensor.is_contiguous, torch.Tensor.is_neg
_is_on_cpu = torch.Tensor.is_cpu.__get__


class Same:
    """What tensors are but for their contents, and where some of them are."""

    def __init__(self, arrays: Sequence[torch.Tensor], tracked: Sequence[int], plain: Sequence[int]) -> None:
        """Notes it.

        Args:
            arrays: the tensors.
            tracked: the places of those that are to stay where they are.
            plain: those whose bytes are copied from wherever they are.
        """
        self._tracked = _mask(arrays, tracked)
        self._addresses = [*map(_address, compress(arrays, self._tracked))]
        self._meaning = _Meaning(arrays, tracked, plain)
        self._guards = _Guards(arrays)

    def holds(self, arrays: Sequence[torch.Tensor]) -> bool:
        """Whether these are the same, and where those were.

        Raises:
            RuntimeError: one of them is of a kind that can't be asked.
        """
        if not all(map(operator.eq, map(_address, compress(arrays, self._tracked)), self._addresses)):
            return False
        if self._guards.hold(arrays):
            return self._meaning.quantizers_hold(arrays)
        if not self._meaning.holds(arrays):
            return False
        self._guards = _Guards(arrays)  # in another mode, or with gradients where there were none
        return True


class _Guards:
    # The same in one call, where torch has that; it also holds tensors to what makes no difference here.

    def __init__(self, arrays: Sequence[torch.Tensor]) -> None:
        firsts = {id(array): place for place, array in reversed([*enumerate(arrays)])}
        self._firsts = _mask(arrays, [*firsts.values()])  # since it wants each once
        self._again = [
            (place, firsts[id(array)]) for place, array in enumerate(arrays) if not self._firsts[place]
        ]
        self._guards: Any = None
        if TensorGuards is not None:
            each = compress(arrays, self._firsts)
            with suppress(TypeError):  # another torch may want them otherwise
                self._guards = TensorGuards(*each, dynamic_dims_sizes=None, dynamic_dims_strides=None)

    def hold(self, arrays: Sequence[torch.Tensor]) -> bool:
        if self._guards is None or any(arrays[place] is not arrays[first] for place, first in self._again):
            return False
        held: bool = self._guards.check(*compress(arrays, self._firsts))
        return held


class _Meaning:
    # What bytes mean, asked of each tensor; strides only where they are not those of C order.

    def __init__(self, arrays: Sequence[torch.Tensor], tracked: Sequence[int], plain: Sequence[int]) -> None:
        self._shapes = [*map(_shape, arrays)]
        self._dtypes = [*map(_dtype, arrays)]
        self._contiguous = [*map(_is_contiguous, arrays)]
        self._strides = [
            (place, array.stride()) for place, array in enumerate(arrays) if not self._contiguous[place]
        ]
        self._plain = _mask(arrays, plain)
        self._raw = _mask(arrays, [*tracked, *plain])  # whose bytes are taken as they are
        self._complex = [place for place in [*tracked, *plain] if arrays[place].is_complex()]
        self._quantizers = [
            (place, quantizer(array)) for place, array in enumerate(arrays) if array.is_quantized
        ]

    def holds(self, arrays: Sequence[torch.Tensor]) -> bool:
        return (
            all(map(operator.eq, map(_shape, arrays), self._shapes))
            and all(map(operator.is_, map(_dtype, arrays), self._dtypes))
            and all(map(operator.is_, map(_is_contiguous, arrays), self._contiguous))
            and all(arrays[place].stride() == strides for place, strides in self._strides)
            and all(map(_is_on_cpu, compress(arrays, self._plain)))
            and not any(map(_is_negated, compress(arrays, self._raw)))
            and not any(arrays[place].is_conj() for place in self._complex)
            and self.quantizers_hold(arrays)
        )

    def quantizers_hold(self, arrays: Sequence[torch.Tensor]) -> bool:
        return all(quantizer(arrays[place]) == known for place, known in self._quantizers)


def _mask(arrays: Sequence[torch.Tensor], places: Sequence[int]) -> bytes:
    mask = bytearray(len(arrays))
    for place in places:
        mask[place] = 1
    return bytes(mask)
