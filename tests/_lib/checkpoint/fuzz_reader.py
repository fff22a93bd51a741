"""Chains of mutated files, read by the package and by the independent reader: the same bytes, or none.

What is tried is decided by a function that chooses numbers, so that hypothesis and atheris can both drive it.
``python tests/_lib/checkpoint/fuzz_reader.py [SECONDS]`` searches guided by coverage; it needs atheris.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import atheris

    with atheris.instrument_imports(include=["dirtytrack.checkpoint"]):
        from dirtytrack.checkpoint import restore as _  # noqa: F401

from _lib.checkpoint import forge, independent_reader
from _lib.checkpoint.forge import BLOCK, ZSTD
from dirtytrack import ChainError
from dirtytrack.checkpoint.chain import Chain
from dirtytrack.checkpoint.format.layout import Layout
from dirtytrack.checkpoint.read.filling import Target, fill
from dirtytrack.checkpoint.restore import load

Choose = Callable[[int], int]  # a number from 0 to below the argument

_MOST_BYTES = 1 << 20  # of a region that is compared; a mutated one may be of any length
_NUMBERS = [
    0,
    1,
    2,
    3,
    31,
    32,
    1024,
    1025,
    127,
    128,
    255,
    256,
    257,
    4095,
    4096,
    65536,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
]


def _seeds() -> list[tuple[str, bytes]]:
    # Three regions through four checkpoints, one of them with a base of its own, in all encodings; and in a
    # fifth one of them has grown, one is new, and one has gone.
    text = (b"some text that compresses " * 1000)[: 5 * BLOCK + 50]
    noise = b"".join(forge.xxh3_64(at.to_bytes(2, "big")).to_bytes(8, "big") for at in range(3 * BLOCK // 8))
    states = []
    for number in range(4):
        text = text[: number * BLOCK] + bytes(BLOCK) + text[(number + 1) * BLOCK :]
        noise = noise[:BLOCK] + bytes([number + 1]) * 9 + noise[BLOCK + 9 :]
        states.append({"text": text, "noise": noise, "few": bytes([number, 1, 2, 3] * 2)})
    states.append({"text": text + text[:BLOCK], "more": noise[: BLOCK + 9], "few": states[-1]["few"]})
    rows = {"few": {"dtype": "<i4", "shape": [2]}}
    files = forge.history(states, encoding=ZSTD, rows=rows)
    files[2] = forge.history(states, encoding=ZSTD, together=True, rows=rows)[2]
    files[0].runs = forge.base_of(files[0], states[0]).runs
    forge.lay_out(files[0])
    files.append(forge.base_of(files[2], states[2]))
    return [(file.name, file.build()) for file in files]


SEEDS = _seeds()


def mutate(name: str, data: bytes, choose: Choose) -> tuple[str, bytes]:
    """A file with one thing changed, that its checksums may or may not show."""
    at = _position(data, choose)
    kind = choose(9)
    if not data:
        pass
    elif kind == 0:
        data = data[:at] + bytes([data[at] ^ 1 << choose(8)]) + data[at + 1 :]
    elif kind == 1:
        number = _NUMBERS[choose(len(_NUMBERS))].to_bytes(8, "little")[: (4, 8)[choose(2)]]
        data = data[:at] + number + data[at + len(number) :]
    elif kind == 2:
        data = data[:at]
    elif kind == 3:
        data += data[at:] if choose(2) else bytes(choose(200))
    elif kind == 4:
        other = SEEDS[choose(len(SEEDS))][1]
        start = _position(other, choose)
        piece = other[start : start + (8, 24, 56, BLOCK)[choose(4)]]
        data = data[:at] + piece + data[at + len(piece) :]
    elif kind == 5:
        data = data[:at] + data[at + (1, 8, 24, BLOCK)[choose(4)] :]
    elif kind == 6:
        name = f"{choose(7):010}-{data[64:72].hex()}.{('base', 'delta')[choose(2)]}"
    elif kind == 7:
        data = _redescribed(data, choose)
    else:
        digits = [
            place for place in range(len(data) - 800, len(data) - 64) if data[place : place + 1].isdigit()
        ]
        place = digits[choose(len(digits))] if digits else at
        data = data[:place] + b"0123456789-.["[choose(13) :][:1] + data[place + 1 :]
    return name, forge.reseal(data) if choose(4) else data


# What stands in a description instead of a value, or beside it.
_VALUES = [
    *["[]", "{}", "null", "true", "-1", "1e999", "NaN", "Infinity", '""', "[[[[]]]]", '[["f1", "<f4"]]'],
    *['{"a": [], "a": {}}', "9" * 4301, "[" * 2000 + "]" * 2000, "[" + "[]," * 2000 + "[]]"],
    *[json.dumps("x" * 3000), json.dumps("<f4," * 1000), "[" + '["f", "<f4"],' * 1000 + '["g", "|V3"]]'],
]


def _redescribed(data: bytes, choose: Choose) -> bytes:
    # Another value for a key of the description, or the same key once more; the footer says its length.
    start = int.from_bytes(data[-64:-56], "little") + int.from_bytes(data[-56:-48], "little")
    text = data[start:-64]
    keys = [*re.finditer(rb'"(\w+)": ', text)]
    if not keys:
        return data
    key, value = keys[choose(len(keys))], _VALUES[choose(len(_VALUES))].encode()
    kept = text[key.end() :] if choose(2) else text[key.end() :].partition(b",")[2].lstrip()
    text = text[: key.end()] + value + b", " + (key[0] if choose(2) else b"") + kept
    return data[:start] + text + data[-64:-48] + len(text).to_bytes(8, "little") + data[-40:]


def _position(data: bytes, choose: Choose) -> int:
    # Mostly where there is structure.
    size, start = len(data), int.from_bytes(data[-64:-56], "little")
    stop = start + int.from_bytes(data[-56:-48], "little")
    sections = [(0, 128), (start, stop), (stop, size - 64), (size - 64, size), (0, size)]
    low, high = sections[choose(len(sections))]
    if not 0 <= low < high <= size:
        low, high = 0, max(size, 1)
    return low + choose(high - low)


def play(choose: Choose, directory: Path) -> None:
    """Makes a directory of mutated files and compares what both readers make of it."""
    files = dict(SEEDS)
    for _ in range(choose(3) + 1):
        name = sorted(files)[choose(len(files))]
        other, data = mutate(name, files[name], choose)
        if choose(3):
            del files[name]
        if data:
            files[other] = data
        if not files:
            return
    for name, data in files.items():
        (directory / name).write_bytes(data)
    compare(directory)


def compare(directory: Path) -> None:
    """Fails unless every byte that the package gives is the one that the independent reader gives."""
    try:
        chain = Chain(directory)
    except ChainError:
        return
    with chain:
        _compare_restored(chain)
        damaged = {problem.file for problem in chain.verify()}
        used = {name for checkpoint in chain for name in checkpoint.files}
        assert not used & damaged
        states, problems = independent_reader.read_chain(directory / name for name in used)
        assert not problems
        for checkpoint in chain:
            state = states[bytes.fromhex(checkpoint.id)]
            assert checkpoint.meta == state.file.description["meta"]
            for place, region in enumerate(checkpoint.regions):
                if region.nbytes <= _MOST_BYTES:
                    assert chain.read(region.name, at=checkpoint.id) == state.content(place), region
                for block, content in list(state.blocks[place].items())[:3]:
                    start = block * BLOCK
                    assert chain.read(region.name, start, start + len(content), at=checkpoint.id) == content
    for lazy in (False, True):
        try:
            arrays = load(directory, lazy=lazy)
        except (ChainError, MemoryError):
            continue
        for array in arrays.values():
            if array.nbytes <= _MOST_BYTES:
                array.tobytes()


def _compare_restored(chain: Chain) -> None:
    # Before verify has sorted out what is damaged: there may be damage that does not count.
    while chain.checkpoints and all(region.nbytes <= _MOST_BYTES for region in chain.newest.regions):
        memory = [bytearray(b"\xaa" * region.nbytes) for region in chain.newest.regions]
        targets = [
            Target.of(Layout(region.name, region.nbytes, None, None, None, 4096), memoryview(data))
            for region, data in zip(chain.newest.regions, memory, strict=True)
        ]
        try:
            checkpoint = chain[fill(chain._archive, targets).id]
        except ChainError:
            continue  # an older one has another table, or there is none
        states, problems = independent_reader.read_chain(chain.path / name for name in checkpoint.files)
        if not problems:
            state = states[bytes.fromhex(checkpoint.id)]
            assert memory == [state.content(place) for place in range(len(memory))]
        return


def _fuzz(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    directory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        play(lambda count: provider.ConsumeIntInRange(0, count - 1), directory)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    logging.disable()
    seconds = sys.argv[1] if len(sys.argv) > 1 else "300"
    corpus = tempfile.mkdtemp()
    (Path(corpus) / "seed").write_bytes(bytes(range(64)))
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=256", "-rss_limit_mb=2048", corpus], _fuzz
    )
    atheris.Fuzz()
