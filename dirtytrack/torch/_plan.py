"""From the leaves of a state to the regions of a chain: which tensor is tracked, copied, or packed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch

from dirtytrack.objects import Description
from dirtytrack.torch._leaves import Spec, is_small, own_memory, refuse
from dirtytrack.torch._packed import Packed, aligned
from dirtytrack.torch._same import Same
from dirtytrack.torch._tree import Parts, Path, array_paths, decode, dotted, encode, from_json, to_json

STATE = ":state"  # the region of what is packed: no argument of Python has such a name

_MOST = 255  # bytes in the name of a region
_KEPT = 200


class Leaf(NamedTuple):
    """One tensor of a state.

    Attributes:
        spec: what it is.
        region: its name in the chain; None: it is packed.
        at: where it is packed; else 0.
    """

    spec: Spec
    region: str | None
    at: int


class Form(NamedTuple):
    """What a chain says of a state, but for the contents."""

    form: list[Any]
    leaves: list[Leaf]

    def encode(self) -> bytes:
        """As it is packed."""
        return encode([to_json(self.form), [[one.region, one.at, *one.spec] for one in self.leaves]])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """What was packed."""
        form, leaves = decode(data)
        for region, at, *_ in leaves:
            if not isinstance(region, str | None) or type(at) is not int or at < 0:
                raise ValueError(f"a tensor at {at!r} of region {region!r}")
        return cls(from_json(form), [Leaf(Spec.from_json(*spec), region, at) for region, at, *spec in leaves])


class Plan:
    """How a state is saved, as long as its tensors stay where they are.

    Attributes:
        form: of the state.
        regions: memory by name, all of it.
        paths: where each tensor is in the state.
        arrays: the tensors, which are kept, with their memory, until the next plan.
    """

    def __init__(self, parts: Parts, before: Plan | None = None, packed: Packed | None = None) -> None:
        """Makes one for a state. What one *before* has is used again, where it still holds.

        What is packed goes to *packed*, or where it went before, if there is room.

        Raises:
            TypeError, ValueError: an entry can't be saved; it is named.
        """
        self.paths = paths = array_paths(parts.form, len(parts.arrays))
        for path, array in zip(paths, parts.arrays, strict=True):
            _refuse(path, array)
        self.regions: dict[str, object] = {}
        self._before = before
        self._moved: dict[str, int] = {}  # how often in a row a tensor was somewhere else
        self._specs: dict[str, Spec] = {}
        self._stages: dict[str, torch.Tensor] = {}
        self._staged: list[tuple[int, torch.Tensor]] = []
        self.arrays = parts.arrays
        names, partial = names_of(paths), _partly_shared(parts.arrays)
        leaves, small = [], 0
        for place, (name, array) in enumerate(zip(names, parts.arrays, strict=True)):
            if is_small(array):
                leaves.append(Leaf(Spec.of(array, ordered=False), None, small))
                small += aligned(array.numel() * array.element_size())
            else:
                spec = self._specs[name] = self._track(name, place, array, is_alone=place not in partial)
                leaves.append(Leaf(spec, name, 0))
        self._before = None
        self._tracked = [
            place for place, leaf in enumerate(leaves) if leaf.region and leaf.region not in self._stages
        ]
        packed_ones = [place for place, leaf in enumerate(leaves) if leaf.region is None and leaf.spec.nbytes]
        self._plain = [place for place in packed_ones if _is_plain(parts.arrays[place])]
        self._others = sorted({*packed_ones} - {*self._plain})
        self._same = Same(parts.arrays, self._tracked, self._plain)
        self.form = Form(parts.form, leaves)
        self._pack(small, encode(parts.values), packed or (before._packed if before else None))

    def tracked(self) -> dict[Path, torch.Tensor]:
        """The tensors that are tracked where they lie, by their paths."""
        return {self.paths[place]: self.arrays[place] for place in self._tracked}

    def still_fits(self, parts: Parts) -> bool:
        """Whether a state has this form, and its tensors are where they were."""
        if self._packed.form is not self._packed_form or parts.form != self.form.form:
            return False
        try:
            return self._same.holds(parts.arrays)
        except RuntimeError:  # one of them is none that can be saved
            return False

    def write(self, parts: Parts) -> bool:
        """Copies what is not tracked where it lies; no, if there is no room for the plain values."""
        values = encode(parts.values)
        if not self._packed.fits(values):
            return False
        arrays = parts.arrays
        for place, stage in self._staged:
            stage.copy_(arrays[place].detach())
        if not self._gathering.copy([arrays[place].data_ptr() for place in self._plain]):
            return False
        if self._others:
            with torch.no_grad():
                torch._foreach_copy_(self._slots, [_bits(arrays[place]) for place in self._others])
        self._packed.write(values)
        return True

    def _track(self, name: str, place: int, array: torch.Tensor, *, is_alone: bool) -> Spec:
        # Where it lies, or else a copy in memory that is our own.
        spec = Spec.of(array, ordered=True)
        found = self._description(name, array, spec) if is_alone else None
        if found is not None:
            self.regions[name] = found
            return spec
        spec = spec.in_c_order()
        stage = self._before._stages.get(name) if self._before is not None else None
        if stage is None or Spec.of(stage, ordered=True) != spec:
            stage = spec.empty()
        self._stages[name] = stage
        self._staged.append((place, stage))
        self.regions[name] = own_memory(stage)
        return spec

    def _description(self, name: str, array: torch.Tensor, spec: Spec) -> Description | None:
        before = self._before
        old = before.regions.get(name) if before is not None else None
        if before is None or not isinstance(old, Description):
            return own_memory(array)
        if name in before._stages:  # it was copied, and it stays so
            return None
        if array.is_conj() or array.is_neg():  # of the bytes that it had
            return None
        if old.address == array.data_ptr():
            return old if before._specs[name] == spec else own_memory(array)
        self._moved[name] = before._moved.get(name, 0) + 1
        return own_memory(array) if self._moved[name] == 1 else None  # None: it is another one at each save

    def _pack(self, small: int, values: bytes, packed: Packed | None) -> None:
        form = self.form.encode()
        if packed is None or not packed.arrange(form, small, len(values)):
            packed = Packed.with_room(form, small, len(values))
        self._packed, self._packed_form = packed, form
        leaves = self.form.leaves
        self._gathering = packed.gathering(
            [(leaves[place].at, self.arrays[place].nbytes) for place in self._plain]
        )
        self._slots = [
            packed.slot(leaves[place].at, bits, bits.dtype)
            for place in self._others
            for bits in [_bits(self.arrays[place])]
        ]
        self.regions[STATE] = packed.memory


def names_of(paths: Sequence[Path]) -> list[str]:
    """Names for paths: unique, readable, and the same for the same paths."""
    names: dict[str, None] = {}
    for path in paths:
        name = whole = dotted(path)
        if len(whole.encode(errors="replace")) > _MOST:
            digest = hashlib.blake2b(whole.encode(errors="replace"), digest_size=8).hexdigest()
            name = f"{whole.encode(errors='replace')[:_KEPT].decode(errors='ignore')}~{digest}"
        again = 1
        while name in names:  # keys with dots in them
            again += 1
            name = f"{whole[:_KEPT]}~{again}"
        names[name] = None
    return list(names)


def _refuse(path: Path, array: torch.Tensor) -> None:
    try:
        refuse(array)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{dotted(path)} is {error}") from None


def _is_plain(array: torch.Tensor) -> bool:
    # Whether its bytes follow each other in the memory of this process.
    return array.device.type == "cpu" and array.is_contiguous() and not (array.is_conj() or array.is_neg())


def _bits(array: torch.Tensor) -> torch.Tensor:
    return array.int_repr() if array.is_quantized else array


def _partly_shared(arrays: Sequence[torch.Tensor]) -> set[int]:
    # The places of those of which another one has some of the bytes, but not the same ones.
    spans = []
    for place, array in enumerate(arrays):
        if array.device.type == "cpu" and not is_small(array) and array.numel():
            start = array.data_ptr()
            extent = sum((n - 1) * step for n, step in zip(array.shape, array.stride(), strict=True)) + 1
            spans.append((start, start + extent * array.element_size(), place))
    found: set[int] = set()
    last = (0, 0)
    for start, stop, place in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start < last[1] and (start, stop) != last:
            found.add(place)
        else:
            last = (start, stop)
    return found
