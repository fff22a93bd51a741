"""Object stores on loopback. `make engines` installs them, in an environment of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from _lib.engines.proxy import Proxy
from _lib.engines.servers import Moto, SeaweedFS, Server
from _lib.support import library
from _lib.works import own_default_session, tracking_works

__all__ = ["own_default_session", "tracking_works"]

SERVERS = {"moto": Moto, "seaweedfs": SeaweedFS}
_numbers = count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs them."""
    for item in items:
        if "engines" in item.path.parts:
            item.add_marker(pytest.mark.engines)


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Each of them, for the whole run."""
    library("moto", "engines")
    running = SERVERS[request.param](tmp_path_factory.mktemp(request.param))
    yield running
    running.kill()


@pytest.fixture
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One to do as one likes with."""
    library("moto", "engines")
    running = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    yield running
    running.kill()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """In front of the server."""
    before = Proxy(server.port)
    yield before
    before.close()


@pytest.fixture
def url() -> str:
    """A place that nobody else has."""
    return f"s3://bucket/run-{next(_numbers)}"


@pytest.fixture
def quick() -> dict[str, Any]:
    """Options of a client that soon gives up."""
    from datetime import timedelta

    backoff = {
        "init_backoff": timedelta(milliseconds=5),
        "max_backoff": timedelta(milliseconds=50),
        "base": 2,
    }
    retry = {"max_retries": 2, "retry_timeout": timedelta(seconds=10), "backoff": backoff}
    return {"retry_config": retry, "timeout": "20s", "connect_timeout": "2s"}
