"""Tensors of torch, by duck type: it is never imported."""

from __future__ import annotations

from typing import Any

from dirtytrack.objects._refusals import EMPTY, NOT_CONTIGUOUS, refuse
from dirtytrack.objects._views import view_at
from dirtytrack.objects.description import Description, Elements

_NUMPY_NAMES = {
    "bool": "|b1",
    "uint8": "|u1",
    "int8": "|i1",
    **{
        f"{kind}{bits}": f"<{kind[0]}{bits // 8}"
        for kind in ("int", "uint", "float")
        for bits in (16, 32, 64)
    },
    "complex64": "<c8",
    "complex128": "<c16",
}


def describe(memory: object) -> Description | None:
    """Describes a tensor on the CPU; None if *memory* is no tensor.

    ``resize_`` moves a tensor's storage, ``set_`` and ``.data =`` give it another one, so it is asked for.
    """
    if not hasattr(memory, "untyped_storage"):
        return None
    tensor: Any = memory
    device = getattr(tensor.device, "type", str(tensor.device))
    refuse(device != "cpu", tensor, f"on device {device!r}: only host memory can be tracked")
    _refuse_lazy(tensor)
    refuse(not tensor.is_contiguous(), tensor, NOT_CONTIGUOUS)
    nbytes = tensor.numel() * tensor.element_size()
    refuse(nbytes == 0, tensor, EMPTY)
    storage, address = tensor.untyped_storage(), tensor.data_ptr()

    def place() -> tuple[int, int, int]:
        now = tensor.untyped_storage()
        return tensor.data_ptr(), now.data_ptr(), now.nbytes()

    return Description(address, nbytes, view_at(address, nbytes, storage), _elements(tensor), place)


def _refuse_lazy(tensor: Any) -> None:
    # The conjugate, or the negative, of what lies in the storage.
    for flag, remedy in (("is_conj", "resolve_conj"), ("is_neg", "resolve_neg")):
        pending = getattr(tensor, flag, None)
        refuse(
            pending is not None and pending(),
            tensor,
            f"a lazy view, whose elements are not what lies in its storage: pass tensor.{remedy}()",
        )


def _elements(tensor: Any) -> Elements | None:
    name = _NUMPY_NAMES.get(str(tensor.dtype).removeprefix("torch."))
    return None if name is None else Elements(name, tuple(tensor.shape))
