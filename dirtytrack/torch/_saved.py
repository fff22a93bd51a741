"""A state in a chain, and the memory that it is restored to."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import torch

from dirtytrack.checkpoint import Chain, Checkpoint
from dirtytrack.errors import ChainError
from dirtytrack.torch._leaves import Spec, own_memory
from dirtytrack.torch._packed import Packed, unpack
from dirtytrack.torch._plan import STATE, Form, Leaf, Plan
from dirtytrack.torch._random import OneGenerator
from dirtytrack.torch._sources import ContainerSource, ModuleSource, Source, TensorSource
from dirtytrack.torch._tree import Path, array_paths, decode, dotted, put_together

_SHOWN = 10
# Options of a group that schedulers and callers add.
_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr", "param_names"}
# What may be raised where a state that a chain describes is put together, and is none.
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, StopIteration, struct.error)


class Saved:
    """The state at one checkpoint, before its tensors are read.

    Attributes:
        id: of the checkpoint.
        title: of the chain, for messages.
        form: of the state.
        state: of each source, by name, once `aim` was called and the regions were restored.
        regions: memory to restore to, by the regions' names.
        in_place: the tensors of the program that these are.
        packed: that of `STATE`.
    """

    def __init__(self, chain: Chain, checkpoint: Checkpoint) -> None:
        """Reads what is packed.

        Raises:
            ChainError: the chain has no such thing, or it is damaged.
        """
        sizes = {layout.name: layout.nbytes for layout in checkpoint.regions}
        if STATE not in sizes:
            raise ChainError(f"the chain in {chain.path} was not written by a TorchCheckpointer")
        self.id = checkpoint.id
        self._chain = chain
        self.title = f"the chain in {chain.path}"

        def read(start: int, stop: int) -> bytes:
            return bytes(chain.read(STATE, start, stop, at=checkpoint.id))

        try:
            form, self._small, values = unpack(read)
            self.form = Form.decode(form)
            self._values = decode(values)
            self._paths = array_paths(self.form.form, len(self.form.leaves))
            self._leaves = dict(zip(self._paths, self.form.leaves, strict=True))
        except NONSENSE as error:
            raise self.unreadable(error) from error
        self.packed = Packed(sizes[STATE])
        self.regions: dict[str, object] = {STATE: self.packed.memory}
        self.in_place: list[torch.Tensor] = []
        self.state: dict[str, Any] = {}
        self._owners = {
            layout.name: layout.name if layout.same_as is None else checkpoint.regions[layout.same_as].name
            for layout in checkpoint.regions
        }

    def aim(self, live: Plan, sources: Mapping[str, Source], *, strict: bool) -> None:
        """Finds memory for the tensors: those of the program where they fit, else new ones.

        Args:
            live: of the program's state.
            sources: that have it.
            strict: whether they have to be those of the chain.

        Raises:
            ChainError: they don't fit; it lists what does not.
        """
        self._put_together(self._fitting(live), sources)
        if problems := self._misfits(live, sources, strict):
            raise ChainError(
                "\n    ".join([f"{self.title} does not fit, and nothing was loaded:", *problems])
            )

    def make(self, only: str | None) -> dict[str, object]:
        """Makes new tensors: all, or those of one source, the others being None.

        Returns:
            The memory to restore to, by the names of regions; none of it twice.

        Raises:
            ChainError: what the chain says of them is impossible.
            MemoryError: there is no memory for them.
        """
        self._put_together({}, [str(path[0]) for path in self._paths if only in (None, path[0])])
        found: dict[str, tuple[str, object]] = {}
        for name, memory in self.regions.items():
            if name != STATE:
                found.setdefault(self._owners[name], (name, memory))
        return dict(found.values())

    def _put_together(self, there: Mapping[Path, torch.Tensor], names: Container[str]) -> None:
        try:
            arrays = [*self._tensors(there, names)]
            self.state = put_together(self.form.form, arrays, self._values)
        except NONSENSE as error:
            raise self.unreadable(error) from error

    def _tensors(
        self, there: Mapping[Path, torch.Tensor], names: Container[str]
    ) -> Iterator[torch.Tensor | None]:
        # In the order of the form, of the sources of these names; and notes where each is to be restored.
        made: dict[str, torch.Tensor] = {}
        for path, leaf in zip(self._paths, self.form.leaves, strict=True):
            if path[0] not in names:
                yield None
                continue
            if leaf.region is None:
                yield self.unpacked(leaf)
                continue
            array, owner = there.get(path), self._owners[leaf.region]
            if array is None:
                array = made[owner] = leaf.spec.empty(made.get(owner))
            else:
                self.in_place.append(array)
            memory = own_memory(array)
            if memory is None or leaf.region == STATE:
                raise ValueError(f"the tensor {dotted(path)} can't be a region")
            self.regions[leaf.region] = memory
            yield array

    def unreadable(self, error: BaseException) -> ChainError:
        """What to raise where what the chain says of its state is impossible."""
        return ChainError(f"{self.title} has a state that can't be read: {type(error).__name__}: {error}")

    @property
    def leaves(self) -> Mapping[Path, Leaf]:
        """The tensors by their paths, in the order of the form."""
        return self._leaves

    def leaf(self, path: Path) -> Leaf:
        """What is at a path."""
        return self._leaves[path]

    def read(self, leaf: Leaf, piece: Sequence[slice]) -> torch.Tensor:
        """A piece of a tensor, and of its region no more rows than that has.

        Raises:
            ChainError: a file is damaged.
        """
        if leaf.region is None:
            return self.unpacked(leaf)[tuple(piece)]
        spec, rows = leaf.spec, slice(0, leaf.spec.shape[0] if leaf.spec.shape else 1)
        if spec.stride is None and spec.quantizer is None and piece:
            rows, piece = piece[0], [slice(None), *piece[1:]]
            spec = spec.with_rows(rows.stop - rows.start)
        row = spec.nbytes // max(rows.stop - rows.start, 1)
        whole = spec.empty()
        own = own_memory(whole)
        assert own is not None
        data = self._chain.read(leaf.region, rows.start * row, rows.stop * row, at=self.id)
        own.view[:] = data
        return whole[tuple(piece)]

    def unpacked(self, leaf: Leaf) -> torch.Tensor:
        """A copy of a tensor that is packed.

        Raises:
            ChainError: what the chain says of it is impossible.
        """
        try:
            return self._unpack(leaf)
        except NONSENSE as error:
            raise self.unreadable(error) from error

    def _unpack(self, leaf: Leaf) -> torch.Tensor:
        array = leaf.spec.empty()
        bits = array.int_repr() if array.is_quantized else array
        nbytes = bits.numel() * bits.element_size()
        if not nbytes:
            return array
        data = bytearray(self._small[leaf.at : leaf.at + nbytes])
        stored = torch.frombuffer(data, dtype=bits.dtype).view(bits.shape)
        if array.is_quantized:
            own = own_memory(array)
            assert own is not None
            own.view[:] = data
            return array
        return array.copy_(stored)

    def value(self, path: Path) -> Any:
        """The value, which is no tensor, at a path of a dictionary of dictionaries."""
        if not self.state:
            self.state = put_together(self.form.form, [None] * len(self.form.leaves), self._values)
        found: Any = self.state
        for key in path:
            found = found[key]
        return found

    def give(self, sources: Mapping[str, Source]) -> None:
        """Gives the sources their states, when the regions were restored."""
        for name, source in sources.items():
            if name in self.state:
                source.load_state_dict(self.state[name])

    def _misfits(self, live: Plan, sources: Mapping[str, Source], strict: bool) -> list[str]:
        problems = []
        if strict:
            problems += _listed("It has nothing of", [(name,) for name in sources if name not in self.state])
            problems += _listed(
                "It has, and was not asked for", [(name,) for name in self.state if name not in sources]
            )
        for name, source in sources.items():
            if name not in self.state:
                continue
            if isinstance(source, ModuleSource):
                problems += self._misfits_of_module(name, live, strict)
            elif isinstance(source, torch.optim.Optimizer):
                problems += _misfits_of_optimizer(name, source, self.state[name])
            elif isinstance(source, TensorSource | ContainerSource | OneGenerator):
                problems += source.misfits(name, self.state[name])
        return problems

    def _misfits_of_module(self, name: str, live: Plan, strict: bool) -> list[str]:
        # As Module.load_state_dict lists them.
        saved = {
            path: leaf.spec.shape
            for path, leaf in zip(self._paths, self.form.leaves, strict=True)
            if path[0] == name
        }
        there = {
            path: tuple(array.shape)
            for path, array in zip(live.paths, live.arrays, strict=True)
            if path[0] == name
        }
        problems = []
        if strict:
            problems += _listed(
                f"Missing key(s) in {name}", [path[1:] for path in there if path not in saved]
            )
            problems += _listed(
                f"Unexpected key(s) in {name}", [path[1:] for path in saved if path not in there]
            )
        return problems + [
            f"size mismatch for {dotted(path)}: {list(saved[path])} in the chain, {list(shape)} here"
            for path, shape in there.items()
            if path in saved and saved[path] != shape
        ]

    def _fitting(self, live: Plan) -> dict[Path, torch.Tensor]:
        # Tensors of the program that can be restored where they lie. What is one memory has to be one region.
        tracked = live.tracked()
        owners: dict[int, set[str]] = {}
        found: dict[Path, torch.Tensor] = {}
        for path, leaf in zip(self._paths, self.form.leaves, strict=True):
            tensor = tracked.get(path)
            if leaf.region is not None and tensor is not None and Spec.of(tensor, ordered=True) == leaf.spec:
                found[path] = tensor.detach()
                owners.setdefault(tensor.data_ptr(), set()).add(self._owners[leaf.region])
        return {path: tensor for path, tensor in found.items() if len(owners[tensor.data_ptr()]) == 1}


def _misfits_of_optimizer(name: str, optimizer: torch.optim.Optimizer, state: Any) -> list[str]:
    try:
        groups = [(len(group["params"]), {*group} - _OF_SCHEDULERS) for group in state["param_groups"]]
    except (LookupError, TypeError):
        return [f"{name} is no state of an optimizer in the chain"]
    saved, there = [size for size, _ in groups], [len(group["params"]) for group in optimizer.param_groups]
    if saved != there:
        return [f"{name} has {saved} parameters by group in the chain, and {there} here"]
    for (_, had), group in zip(groups, optimizer.param_groups, strict=True):
        # Versions of torch add options or drop some, but one optimizer has what the other has not.
        lacking, foreign = sorted(optimizer.defaults.keys() - had), sorted(map(str, had - group.keys()))
        if lacking and foreign:
            return [
                f"{name} is of another kind in the chain: it has {', '.join(foreign[:_SHOWN])} there, and "
                f"here {', '.join(lacking[:_SHOWN])}. To begin with this one, give it another name, with "
                "strict=False"
            ]
    return []


def _listed(title: str, paths: list[Path]) -> list[str]:
    if not paths:
        return []
    more = f", and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return [f"{title}: {', '.join(repr(dotted(path)) for path in paths[:_SHOWN])}{more}"]
