"""What DCP says of a checkpoint, as JSON: it is never pickled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from dirtytrack.torch._tree import NoDataError, from_json, put_together, take_apart, to_json


class Stored(NamedTuple):
    """Where an item of a checkpoint is.

    Attributes:
        chain: name of the directory of its chain.
        state: identifier of the checkpoint in it.
        key: names the item there.
    """

    chain: str
    state: str
    key: str


def key_of(index: MetadataIndex) -> str:
    """The name of an item: unlike others in one checkpoint."""
    return index.fqn if index.offset is None else f"{index.fqn}@{','.join(map(str, index.offset))}"


def to_json_of(metadata: Metadata, items: Mapping[MetadataIndex, Stored]) -> dict[str, Any]:
    """Metadata as JSON has it, with where each item is stored.

    Raises:
        TypeError: it holds something that is none of torch's own planners.
    """
    try:
        planner = take_apart(metadata.planner_data)
        if planner.arrays:
            raise NoDataError("of tensors")
    except NoDataError as error:
        raise TypeError(f"the planner's own data can't be stored: it is {error.reason}") from None
    tensors: dict[str, Any] = {}
    others: list[str] = []
    for name, one in metadata.state_dict_metadata.items():
        if isinstance(one, TensorStorageMetadata):
            chunks = [[list(chunk.offsets), list(chunk.sizes)] for chunk in one.chunks]
            tensors[name] = [_properties_to_json(one.properties), list(one.size), chunks]
        else:
            others.append(name)
    chains = [*dict.fromkeys((stored.chain, stored.state) for stored in items.values())]
    places = {chain: place for place, chain in enumerate(chains)}
    return {
        "tensors": tensors,
        "bytes": others,
        "planner": [to_json(planner.form), planner.values],
        "chains": chains,
        "items": [
            [
                index.fqn,
                None if index.offset is None else list(index.offset),
                index.index,
                places[stored.chain, stored.state],
                stored.key,
            ]
            for index, stored in items.items()
        ],
    }


def from_json_of(found: Mapping[str, Any]) -> Metadata:
    """The metadata; `storage_data` says of each item where it is `Stored`."""
    described: dict[str, Any] = {name: BytesStorageMetadata() for name in found["bytes"]}
    for name, (properties, size, chunks) in found["tensors"].items():
        described[name] = TensorStorageMetadata(
            properties=_properties_from_json(*properties),
            size=torch.Size(size),
            chunks=[
                ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in chunks
            ],
        )
    form, values = found["planner"]
    return Metadata(
        state_dict_metadata=described,
        planner_data=put_together(from_json(form), [], values),
        storage_data={
            MetadataIndex(name, None if offset is None else torch.Size(offset), index): Stored(
                found["chains"][place][0], found["chains"][place][1], key
            )
            for name, offset, index, place, key in found["items"]
        },
    )


def _properties_to_json(properties: TensorProperties) -> list[Any]:
    names = [str(one).removeprefix("torch.") for one in (properties.dtype, properties.layout)]
    memory_format = str(properties.memory_format).removeprefix("torch.")
    return [*names, properties.requires_grad, memory_format, properties.pin_memory]


def _properties_from_json(
    dtype: str, layout: str, requires_grad: bool, memory_format: str, pin_memory: bool
) -> TensorProperties:
    return TensorProperties(
        dtype=getattr(torch, dtype),
        layout=getattr(torch, layout),
        requires_grad=requires_grad,
        memory_format=getattr(torch, memory_format),
        pin_memory=pin_memory,
    )
