"""A tensor as a chain has it: what it is, where its bytes are taken from, or why it can't be saved."""

from __future__ import annotations

import math
import mmap
from typing import Any, NamedTuple, Self

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dirtytrack.objects import Description, describe

_SCHEMES = {torch.per_tensor_affine: "tensor", torch.per_channel_affine: "channel"}


class Spec(NamedTuple):
    """What a tensor is, but for its contents.

    Attributes:
        dtype: its name.
        shape: lengths of the axes.
        stride: in elements, if it is not in C order; None: it is.
        quantizer: what the values of a quantized one depend on; None: it is not.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None
    quantizer: tuple[Any, ...] | None

    @classmethod
    def of(cls, tensor: torch.Tensor, *, ordered: bool) -> Self:
        """That of a tensor, in its own order of axes or in C order."""
        stride = None if not ordered or tensor.is_contiguous() else tuple(tensor.stride())
        found = quantizer(tensor) if tensor.is_quantized else None
        return cls(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), stride, found)

    @classmethod
    def from_json(cls, dtype: str, shape: list[int], stride: list[int] | None, quantizer: Any) -> Self:
        """What JSON had of one."""
        ordered = None if stride is None else tuple(stride)
        return cls(dtype, tuple(shape), ordered, _tuples(quantizer))

    def in_c_order(self) -> Self:
        """The same in C order."""
        return self._replace(stride=None)

    def with_rows(self, count: int) -> Self:
        """The same, of which there are so many along the first axis."""
        return self._replace(shape=(count, *self.shape[1:]))

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * int(getattr(torch, self.dtype).itemsize)

    def fits(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is this, and in this order."""
        return self == Spec.of(tensor, ordered=True)

    def empty(self, tied: torch.Tensor | None = None) -> torch.Tensor:
        """A new one, on the CPU, in memory of its own, or that of another one which has as many bytes.

        Raises:
            ValueError, TypeError, AttributeError, RuntimeError: there is no such tensor.
        """
        dtype = getattr(torch, self.dtype)
        if self.quantizer is None:
            if tied is not None:
                stride = self.stride or torch.empty(self.shape, device="meta").stride()
                last = sum((n - 1) * step for n, step in zip(self.shape, stride, strict=True))
                if (last + 1) * dtype.itemsize > tied.untyped_storage().nbytes():  # torch would move it
                    raise ValueError("a tensor that is longer than the one that it is tied to")
                return torch.empty(0, dtype=dtype).set_(tied.untyped_storage(), 0, self.shape, stride)
            if self.stride is None:
                return torch.empty(self.shape, dtype=dtype)
            return torch.empty_strided(self.shape, self.stride, dtype=dtype)
        scheme, scale, zero, *axis = self.quantizer
        if scheme == "tensor":
            return torch._empty_affine_quantized(self.shape, scale=scale, zero_point=zero, dtype=dtype)
        return torch._empty_per_channel_affine_quantized(
            self.shape,
            scales=torch.tensor(scale, dtype=torch.float64),
            zero_points=torch.tensor(zero),
            axis=axis[0],
            dtype=dtype,
        )


def refuse(tensor: torch.Tensor) -> None:
    """Raises a TypeError or ValueError, without a name, if a tensor can't be saved at all."""
    kind = type(tensor).__name__
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        raise ValueError("not initialized: run the module once, or give it its shape, before it is opened")
    if tensor.is_meta:
        raise ValueError("on the device 'meta', and has no contents: materialize it (to_empty) first")
    if kind == "DTensor":
        raise TypeError("a DTensor, a part of a tensor of many processes: save it with DcpWriter")
    if kind == "FakeTensor":
        raise TypeError("a FakeTensor, and has no contents: save the one that it stands for")
    if is_traceable_wrapper_subclass(tensor):
        raise TypeError(f"a {kind}, which is made of other tensors: save these")
    if tensor.is_nested:
        raise TypeError("a nested tensor, which is made of several: save its unbind()")
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise TypeError(f"a tensor in the layout {layout}: save what it is made of, or to_dense()")
    if tensor.device.type == "cpu" and tensor.numel() and not tensor.untyped_storage().nbytes():
        raise ValueError("without memory: its storage was resized to nothing, as sharding does between steps")
    if tensor.is_quantized and tensor.qscheme() not in _SCHEMES:
        raise TypeError(f"quantized by {tensor.qscheme()}, which is not known here: save its int_repr()")


def own_memory(tensor: torch.Tensor) -> Description | None:
    """The memory of a tensor that can be tracked where it lies; None: it has to be copied to be saved.

    Whoever asks sees to it that the tensor keeps it.
    """
    if tensor.device.type != "cpu" or tensor.is_shared():  # to which others may write, unseen
        return None
    try:
        return describe(tensor.detach()).vouched()
    except ValueError:  # not dense, or a lazy view
        return None


def is_small(tensor: torch.Tensor) -> bool:
    """Whether it is less than a page, and better copied than tracked."""
    return bool(tensor.numel() * tensor.element_size() < mmap.PAGESIZE)


def quantizer(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What the values of a quantized tensor depend on."""
    if _SCHEMES[tensor.qscheme()] == "tensor":
        return ("tensor", tensor.q_scale(), tensor.q_zero_point())
    scales, zeros = tensor.q_per_channel_scales().tolist(), tensor.q_per_channel_zero_points().tolist()
    return ("channel", tuple(scales), tuple(zeros), tensor.q_per_channel_axis())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
