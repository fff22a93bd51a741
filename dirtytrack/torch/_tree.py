"""What a state_dict holds, taken apart: its form, its arrays and its plain values; and put together again."""

from __future__ import annotations

import base64
import collections
import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from dirtytrack._json import check, parse

_PLAIN = frozenset({bool, int, float, str, type(None)})  # what JSON has itself
_TENSORS = frozenset({torch.Tensor, torch.nn.Parameter})
_KEYS = frozenset({str, int})
_SEQUENCES: dict[type, str] = {
    list: "list",
    tuple: "tuple",
    set: "set",
    frozenset: "frozenset",
    torch.Size: "size",
}
_MAPPINGS: dict[type, str] = {
    dict: "dict",
    collections.OrderedDict: "ordered",
    collections.Counter: "counter",
}
_MAKERS: dict[str, Callable[[Any], Any]] = {
    name: kind for kind, name in (*_SEQUENCES.items(), *_MAPPINGS.items())
}
_DEEPEST = 200
_MOST_BITS = math.floor(sys.int_info.default_max_str_digits * math.log2(10))  # of an integer
_MOST_MEMORY = 1 << 30  # bytes of the plain values when they are read

Token = Any  # a str, or a tuple that begins with one
Path = tuple[Any, ...]  # keys, from the outermost


class NoDataError(TypeError):
    """An object that is no data.

    Attributes:
        reason: what is wrong with it.
        path: where it is.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: Path = ()


class Parts(NamedTuple):
    """A value, taken apart.

    Attributes:
        form: how it is put together, token by token. Two values that differ in their leaves alone have equal
            ones.
        arrays: the leaves that are tensors; an array of numpy is one of its bytes.
        values: the other leaves, as JSON has them.
    """

    form: list[Token]
    arrays: list[Any]
    values: list[Any]


def take_apart(value: Any) -> Parts:
    """Takes a value apart.

    Raises:
        NoDataError: a part of it is no data.
    """
    parts = Parts([], [], [])
    _take(value, parts, 0)
    return parts


def put_together(form: Iterable[Token], arrays: Iterable[Any], values: Iterable[Any]) -> Any:
    """Makes the value of its parts; arrays that are None stay so."""
    return _put(iter(form), iter(arrays), iter(values))


def array_paths(form: Iterable[Token], count: int) -> list[Path]:
    """Where each of the arrays of a form is, of which there are so many.

    Raises:
        ValueError: there are others than that.
    """
    paths: list[Path] = []
    _walk(iter(form), (), paths, count)
    if len(paths) != count:
        raise ValueError(f"its form has {len(paths)} tensors, and there are {count}")
    return paths


def are_tensors(form: Iterable[Token]) -> Iterator[bool]:
    """For each of the arrays of a form whether it is a tensor, and not one of numpy."""
    keys: tuple[Any, ...] = ()
    for token in form:
        if isinstance(token, tuple):
            if token[0] == "ndarray":
                yield False
            elif token[0] == "rows":
                yield from (True for _ in keys for _ in token[1])
            keys = token[1]
        elif token == "array":
            yield True
        elif token == "arrays":
            yield from (True for _ in keys)


def dotted(path: Path) -> str:
    """A path as messages and names have it."""
    return ".".join(map(str, path))


def to_json(form: Iterable[Token]) -> list[Any]:
    """A form as JSON has it."""
    return [_token_to_json(token) for token in form]


def from_json(form: Iterable[Any]) -> list[Token]:
    """A form from what JSON had."""
    return [token if isinstance(token, str) else _token_from_json(*token) for token in form]


def _take(value: Any, parts: Parts, depth: int) -> None:
    kind = type(value)
    if kind in _TENSORS:
        parts.form.append("array")
        parts.arrays.append(value)
    elif kind in _PLAIN:
        if kind is int and value.bit_length() > _MOST_BITS:
            raise NoDataError("an integer of more digits than Python reads: save it as bytes")
        parts.form.append("value")
        parts.values.append(value)
    elif kind in _MAPPINGS:
        _take_mapping(value, _MAPPINGS[kind], parts, depth)
    elif kind in _SEQUENCES:
        items = sorted(value, key=repr) if kind in (set, frozenset) else value
        parts.form.append((_SEQUENCES[kind], len(items)))
        _take_sequence(items, parts, depth)
    else:
        _take_other(value, parts, depth)


def _take_mapping(value: Any, name: str, parts: Parts, depth: int) -> None:
    keys = tuple(value)
    if not _KEYS.issuperset(map(type, keys)):
        for key in keys:
            _check_key(key)
    # Of a module's: the versions of its parts.
    metadata = None if name == "dict" else getattr(value, "_metadata", None)
    parts.form.append((name, keys) if metadata is None else ("module", keys, metadata))
    kinds = {*map(type, value.values())}
    if kinds <= _TENSORS:
        parts.form.append("arrays")
        parts.arrays.extend(value.values())
    elif kinds == {dict} and (rows := _rows(value.values())) is not None:
        parts.form.append(("rows", rows[0]))
        parts.arrays.extend(rows[1])
    else:
        parts.form.append("entries")
        _take_all(value.items(), parts, depth)


def _rows(dicts: Collection[dict[Any, Any]]) -> tuple[tuple[Any, ...], list[Any]] | None:
    # The keys and the values of dictionaries that have the same keys, in this order, and tensors alone, as an
    # optimizer has for its parameters. All of it is asked in loops that are native.
    keys = [*map(tuple, dicts)]
    values = [*chain.from_iterable(map(dict.values, dicts))]
    are_alike = keys.count(keys[0]) == len(keys) and _KEYS.issuperset(map(type, chain.from_iterable(keys)))
    return (keys[0], values) if are_alike and _TENSORS.issuperset(map(type, values)) else None


def _take_sequence(items: Collection[Any], parts: Parts, depth: int) -> None:
    kinds = {*map(type, items)}
    has_digits = int in kinds and (len(kinds) > 1 or max(map(int.bit_length, items)) > _MOST_BITS)
    if kinds <= _PLAIN and not has_digits:
        parts.form.append("values")
        parts.values.extend(items)
    else:
        parts.form.append("items")
        _take_all(enumerate(items), parts, depth)


def _take_all(items: Iterable[tuple[Any, Any]], parts: Parts, depth: int) -> None:
    if depth > _DEEPEST:
        raise NoDataError(f"nested more than {_DEEPEST} deep, or in itself")
    for key, item in items:
        try:
            _take(item, parts, depth + 1)
        except NoDataError as error:
            error.path = (key, *error.path)
            raise


def _take_other(value: Any, parts: Parts, depth: int) -> None:
    if isinstance(value, torch.Tensor):
        parts.form.append("array")
        parts.arrays.append(value)
    elif type(value) is np.ndarray and value.dtype.names is None and not value.dtype.hasobject:
        parts.form.append(("ndarray", value.shape, value.dtype.str))
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        parts.arrays.append(torch.from_numpy(flat if flat.flags.writeable else flat.copy()))
    elif isinstance(value, np.generic) and not value.dtype.hasobject:
        parts.form.append(("scalar", value.dtype.str))
        parts.values.append(_text(value.tobytes()))
    elif type(value) in (bytes, bytearray):
        parts.form.append(type(value).__name__)
        parts.values.append(_text(value))
    elif type(value) is complex:
        parts.form.append("complex")
        parts.values.append([value.real, value.imag])
    elif isinstance(value, torch.dtype):
        parts.form.append(("dtype", str(value).removeprefix("torch.")))
    elif isinstance(value, torch.device):
        parts.form.append(("device", str(value)))
    elif type(value) is collections.deque:
        parts.form.append(("deque", len(value), value.maxlen))
        _take_sequence(value, parts, depth)
    else:
        kind = type(value)
        what = f"a {kind.__module__}.{kind.__qualname__}"
        if kind is np.ndarray:
            what = f"an array of numpy's of {value.dtype}"
        raise NoDataError(
            f"{what}, which is no data: tensors, arrays of numbers, numbers, text, bytes, and lists, tuples, "
            "sets and dictionaries of these are"
        )


def _put(form: Iterator[Token], arrays: Iterator[Any], values: Iterator[Any]) -> Any:
    token = next(form)
    if token == "array":
        return next(arrays)
    if token == "value":
        return next(values)
    if isinstance(token, str):
        return _SIMPLE[token](next(values))
    name, *rest = token
    if name == "ndarray":
        array = next(arrays)
        return None if array is None else array.numpy().view(rest[1]).reshape(rest[0])
    if name == "scalar":
        return np.frombuffer(base64.b64decode(next(values)), rest[0])[0]
    if name == "dtype":
        return getattr(torch, rest[0])
    if name == "device":
        return torch.device(rest[0])
    if name == "deque":
        return collections.deque(_put_sequence(rest[0], form, arrays, values), rest[1])
    if name in _SEQUENCES.values():
        return _MAKERS[name](_put_sequence(rest[0], form, arrays, values))
    items = _put_items(rest[0], form, arrays, values)
    return _mapping(name, dict(zip(rest[0], items, strict=True)), *rest[1:])


def _put_sequence(
    count: int, form: Iterator[Token], arrays: Iterator[Any], values: Iterator[Any]
) -> list[Any]:
    if next(form) == "values":
        return [next(values) for _ in range(count)]
    return [_put(form, arrays, values) for _ in range(count)]


def _put_items(
    keys: tuple[Any, ...], form: Iterator[Token], arrays: Iterator[Any], values: Iterator[Any]
) -> list[Any]:
    how = next(form)
    if how == "arrays":
        return [next(arrays) for _ in keys]
    if how == "entries":
        return [_put(form, arrays, values) for _ in keys]
    return [{key: next(arrays) for key in how[1]} for _ in keys]


def _mapping(name: str, items: dict[Any, Any], metadata: Any = None) -> Any:
    if name != "module":
        return _MAKERS[name](items)
    made = collections.OrderedDict(items)
    vars(made)["_metadata"] = metadata  # where Module.state_dict has it
    return made


def _walk(form: Iterator[Token], path: Path, paths: list[Path], most: int) -> None:
    token = next(form)
    if token == "array" or token[0] == "ndarray":
        paths.append(path)
    elif isinstance(token, tuple) and token[0] in (*_SEQUENCES.values(), "deque"):
        if next(form) != "values":
            for place in range(token[1]):
                _walk(form, (*path, place), paths, most)
    elif isinstance(token, tuple) and (token[0] == "module" or token[0] in _MAPPINGS.values()):
        how = next(form)
        if how == "entries":
            for key in token[1]:
                _walk(form, (*path, key), paths, most)
        else:
            rows = [()] if how == "arrays" else [(key,) for key in how[1]]
            if len(paths) + len(token[1]) * len(rows) > most:  # as a form of some kilobytes may say
                raise ValueError(f"its form has more than {most} tensors, and there are {most}")
            paths.extend((*path, key, *row) for key in token[1] for row in rows)


def _check_key(key: Any) -> None:
    if type(key) is tuple:
        for one in key:
            _check_key(one)
    elif type(key) not in _PLAIN:
        raise NoDataError(f"a dictionary with the key {key!r}, which is no data")


def _token_to_json(token: Token) -> Any:
    if isinstance(token, str):
        return token
    name, *rest = token
    if isinstance(rest[0], tuple):
        rest[0] = [_key_to_json(key) for key in rest[0]]
    return [name, *rest]


def _token_from_json(name: str, *rest: Any) -> Token:
    first, *others = rest
    if isinstance(first, list):
        first = tuple(_key_from_json(key) for key in first)
    if name == "module":
        others = [collections.OrderedDict(others[0])]
    return (name, first, *others)


def _key_to_json(key: Any) -> Any:
    return {"tuple": [_key_to_json(one) for one in key]} if type(key) is tuple else key


def _key_from_json(key: Any) -> Any:
    return tuple(_key_from_json(one) for one in key["tuple"]) if isinstance(key, dict) else key


def _text(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()


_SIMPLE: dict[str, Callable[[Any], Any]] = {
    "bytes": base64.b64decode,
    "bytearray": lambda text: bytearray(base64.b64decode(text)),
    "complex": lambda pair: complex(*pair),
}


def encode(parts: Any) -> bytes:
    """JSON, also of numbers that are none: it is read by `decode` alone.

    Raises:
        ValueError: it holds more than `decode` reads.
    """
    data = json.dumps(parts, separators=(",", ":")).encode()
    check(data, _MOST_MEMORY)
    return data


def decode(data: bytes | bytearray | memoryview) -> Any:
    """What `encode` was given; tuples are lists.

    Raises:
        ValueError, RecursionError: it is something else.
    """
    return parse(bytes(data), _MOST_MEMORY)
