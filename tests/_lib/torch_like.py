"""A torch tensor as far as the library asks, for where torch is not installed."""

from __future__ import annotations

import mmap
import re
from types import SimpleNamespace

from _lib.support import address_of


class Storage:
    """As torch's untyped storage: where the bytes are. Give it other *memory*, and it has moved."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory

    def data_ptr(self) -> int:
        return address_of(self.memory)

    def nbytes(self) -> int:
        return len(self.memory)


class Tensor:
    """As a tensor of one axis, from *offset* bytes on to the end of its storage."""

    def __init__(
        self,
        storage: Storage,
        offset: int = 0,
        device: str = "cpu",
        contiguous: bool = True,
        dtype: str = "float32",
        lazy: str = "",
    ) -> None:
        self.storage, self.offset, self.contiguous, self.lazy = storage, offset, contiguous, lazy
        self.device = SimpleNamespace(type=device)
        self.dtype = f"torch.{dtype}"
        self.is_quantized = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.numel(),)

    def untyped_storage(self) -> Storage:
        return self.storage

    def data_ptr(self) -> int:
        return self.storage.data_ptr() + self.offset

    def numel(self) -> int:
        return (self.storage.nbytes() - self.offset) // self.element_size()

    def element_size(self) -> int:
        bits = re.search(r"\d+", self.dtype)
        return int(bits[0]) // 8 if bits else 1

    def is_contiguous(self) -> bool:
        return self.contiguous

    def stride(self) -> tuple[int, ...]:
        return (1 if self.contiguous else 2,)

    def is_conj(self) -> bool:
        return self.lazy == "conj"

    def is_neg(self) -> bool:
        return self.lazy == "neg"
