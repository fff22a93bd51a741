"""Tensors of torch, by duck type: it is never imported."""

from __future__ import annotations

from typing import Any

from dirtytrack.objects._refusals import NOT_CONTIGUOUS, kind_of, refuse
from dirtytrack.objects._views import view_at
from dirtytrack.objects.description import Description, Elements, elements_of
from dirtytrack.objects.element_types import ElementType
from dirtytrack.objects.places import is_tensor, place_of

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
_NO_STORAGE = "without storage of its own: pass the tensors that it is made of"


def describe(memory: object) -> Description | None:
    """Describes a tensor on the CPU; None if *memory* is no tensor.

    ``resize_`` moves a tensor's storage, ``set_`` and ``.data =`` give it another one, so it is asked for.
    """
    if not is_tensor(memory):
        return None
    tensor: Any = memory
    device = getattr(tensor.device, "type", str(tensor.device))
    refuse(device != "cpu", tensor, f"on device {device!r}: only host memory can be tracked")
    _refuse_parts(tensor)
    _refuse_lazy(tensor)
    elements = _elements(tensor)
    if elements is None:
        raise ValueError(f"{kind_of(tensor)} is {NOT_CONTIGUOUS}")
    nbytes = tensor.numel() * tensor.element_size()
    storage, address = _storage(tensor, nbytes)
    return Description(address, nbytes, view_at(address, nbytes, storage), elements, place_of(tensor))


def tensors_of(module: Any) -> dict[str, Any]:
    """Returns a module's parameters and buffers by their names, each once, but those that are empty.

    Those of a lazy module that have no shape yet are among them, so that they are refused by name.
    """
    found = dict(module.named_parameters())
    buffers = getattr(module, "named_buffers", None)
    found.update(buffers() if buffers is not None else ())
    return {
        name: tensor for name, tensor in found.items() if hasattr(tensor, "materialize") or tensor.numel()
    }


def is_module(thing: object) -> bool:
    """Says whether it is a module of torch, or looks like one."""
    return hasattr(thing, "named_parameters") and not isinstance(thing, type)


def _refuse_parts(tensor: Any) -> None:
    # What is made of several tensors, lies in an order that only torch knows, or is not there yet.
    layout = str(getattr(tensor, "layout", "torch.strided"))
    nested, sparse = getattr(tensor, "is_nested", False), layout.startswith("torch.sparse")
    refuse(nested, tensor, "nested, and made of several tensors: pass values(), or those of unbind()")
    refuse(sparse, tensor, "sparse, and made of several tensors: pass these, such as values(), or to_dense()")
    refuse(layout != "torch.strided", tensor, f"in the layout {layout}: pass to_dense()")
    refuse(hasattr(tensor, "materialize"), tensor, "not initialized: materialize it, or run the model once")


def _refuse_lazy(tensor: Any) -> None:
    # The conjugate, or the negative, of what lies in the storage.
    pending = [(tensor.is_conj(), ".resolve_conj()"), (tensor.is_neg(), ".resolve_neg()")]
    remedy = "".join(call for is_pending, call in pending if is_pending)
    refuse(
        remedy, tensor, f"a lazy view, whose elements are not what lies in its storage: pass tensor{remedy}"
    )


def _storage(tensor: Any, nbytes: int) -> tuple[Any, int]:
    try:
        storage = tensor.untyped_storage()
        device = str(getattr(storage, "device", "cpu"))
        refuse(
            device != "cpu", tensor, _NO_STORAGE
        )  # before it is asked for its address, of which torch warns
        start, address = storage.data_ptr(), tensor.data_ptr()
    except RuntimeError:
        raise ValueError(f"{kind_of(tensor)} is {_NO_STORAGE}") from None
    refuse(
        address - start + nbytes > storage.nbytes(),
        tensor,
        f"longer, with {nbytes} bytes, than its storage, which has {storage.nbytes()}: pass a copy in which "
        "each element has bytes of its own",
    )
    return storage, address


def _elements(tensor: Any) -> Elements | None:
    size = tensor.element_size()
    strides = None if tensor.is_contiguous() else [step * size for step in tensor.stride()]
    return elements_of(_type(tensor, size), size, tuple(tensor.shape), strides)


def _type(tensor: Any, size: int) -> ElementType:
    name = str(tensor.dtype).removeprefix("torch.")
    if name in _NUMPY_NAMES:
        return _NUMPY_NAMES[name]
    return {"name": name, "itemsize": size, **(_quantizer(tensor) if tensor.is_quantized else {})}


def _quantizer(tensor: Any) -> dict[str, Any]:
    scheme = str(tensor.qscheme())
    if scheme == "torch.per_tensor_affine":
        return {"scale": tensor.q_scale(), "zero_point": tensor.q_zero_point()}
    scales, zeros = tensor.q_per_channel_scales().tolist(), tensor.q_per_channel_zero_points().tolist()
    return {"scheme": scheme, "axis": tensor.q_per_channel_axis(), "scales": scales, "zero_points": zeros}
