"""Object stores on loopback, started and stopped by the tests: moto and SeaweedFS, both from PyPI."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import obstore

from _lib.support import library

KEY, SECRET, REGION = "test", "testtest", "us-east-1"
_START_SECONDS = 60


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Server:
    """A server of S3 with one bucket, ``bucket``.

    Attributes:
        port: it listens at, on loopback.
        process: of the server.
    """

    def __init__(self, folder: Path) -> None:
        """Starts it, with its files in a folder."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._ports = [free_port() for _ in range(4)]
        try:
            self.start()
            self._make_bucket()
        except BaseException:
            if hasattr(self, "process"):  # else there is no such program, which is what is told
                self.kill()
            raise

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it again, with what it has on its disk, and waits until it answers."""
        with open(self._folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends it at once, in the middle of whatever it does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def options(self, port: int | None = None, **more: Any) -> dict[str, Any]:
        """``store_options`` that reach it, or what listens at another port before it."""
        return {
            "endpoint": f"http://127.0.0.1:{port or self.port}",
            "region": REGION,
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "allow_http": True,
        } | more

    def store(self) -> Any:
        """A store of obstore on the bucket."""
        options = self.options()
        client = {"allow_http": options.pop("allow_http")}
        return obstore.store.S3Store("bucket", client_options=client, **options)

    def _answers(self) -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/")
                return connection.getresponse().status < 500
            except (OSError, http.client.HTTPException):
                return False

    def _make_bucket(self) -> None:
        boto3 = library("boto3", "engines")
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                client.create_bucket(Bucket="bucket")
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


class Moto(Server):
    """In memory; takes any credentials."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]


class SeaweedFS(Server):
    """On the disk; takes its own credentials, and none for who may only read."""

    def command(self) -> list[str]:
        master, volume, filer, _ = self._ports
        config = self._folder / "s3.json"
        config.write_text(
            json.dumps(
                {
                    "identities": [
                        _identity("all", KEY, SECRET, "Admin"),
                        _identity("reader", "reader", "readreader", "Read", "List"),
                    ]
                }
            )
        )
        return [
            str(Path(sys.executable).parent / "weed"),
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self._folder}",
            "-master.volumeSizeLimitMB=256",
            "-volume.max=20",
            f"-master.port={master}",
            f"-master.port.grpc={free_port()}",
            f"-volume.port={volume}",
            f"-volume.port.grpc={free_port()}",
            "-filer",
            f"-filer.port={filer}",
            f"-filer.port.grpc={free_port()}",
            "-s3",
            f"-s3.port={self.port}",
            f"-s3.port.grpc={free_port()}",
            f"-s3.config={config}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]


def _identity(name: str, key: str, secret: str, *actions: str) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": list(actions)}
