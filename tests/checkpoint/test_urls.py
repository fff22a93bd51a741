"""URLs in the place of paths, and what may be said about them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from _lib.support import in_child
from dirtytrack import ForkedError, StoreError
from dirtytrack._lifetime.undo import Undo
from dirtytrack.checkpoint import Chain, Checkpointer, compact, load, restore
from dirtytrack.checkpoint.store import find_place, open_store
from dirtytrack.checkpoint.store.directory import Directory
from dirtytrack.checkpoint.store.objects import ObjectStore
from dirtytrack.checkpoint.store.urls import open_bucket, scheme_of


class Place(os.PathLike):
    """What is no Path, and has a URL."""

    def __fspath__(self):
        return "memory://of-a-path"


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("place", "scheme"),
    [
        ("s3://bucket/run", "s3"),
        ("S3://bucket/run", "s3"),
        ("gs://bucket", "gs"),
        ("az://container/run", "az"),
        ("abfss://container@account.dfs.core.windows.net/x", "abfss"),
        ("memory://name", "memory"),
        ("file:///tmp", "file"),
        ("run", None),
        ("/tmp/s3", None),
        ("s3:bucket", None),
        ("./ftp://x", None),
        (Path("/tmp/run"), None),
        (Place(), "memory"),
        (7, None),
    ],
)
def test_the_scheme_of_a_place(place, scheme):
    """Of a URL; None for a path, however it looks, and for what is neither."""
    assert scheme_of(place) == scheme


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "place", ["ftp://host/x", "http://host/x", "https://host/x", "s4://bucket", "S3A+x://b"]
)
def test_an_unknown_scheme_is_an_error(place, tmp_path, monkeypatch):
    """Everywhere, and no directory of that name is made."""
    monkeypatch.chdir(tmp_path)
    array = np.zeros(10)
    for act in (
        lambda: Checkpointer(place, {"a": array}),
        lambda: Checkpointer.open(place, {"a": array}),
        lambda: Checkpointer.resume(place, {"a": array}),
        lambda: Chain(place),
        lambda: load(place),
        lambda: restore(place, into={"a": array}),
        lambda: compact(place),
    ):
        with pytest.raises(StoreError, match=r"of no known kind.*s3://.*memory://"):
            act()
    assert os.listdir(tmp_path) == []


@pytest.mark.anywhere
def test_an_empty_path_is_an_error(tmp_path, monkeypatch):
    """As an unset variable makes it; a Path of it would be the working directory."""
    monkeypatch.chdir(tmp_path)
    for act in (lambda: Checkpointer.open("", {"a": np.zeros(10)}), lambda: Chain(""), lambda: compact("")):
        with pytest.raises(StoreError, match="the path is empty"):
            act()
    assert os.listdir(tmp_path) == []


@pytest.mark.anywhere
def test_a_url_that_became_a_path_is_told():
    """A Path drops one of the slashes, and would be a directory; also as the str that it makes."""
    for path in (Path("s3://bucket/run"), Path("memory://x"), PurePosixPath("gs://x"), "s3:/bucket/run"):
        with pytest.raises(StoreError, match="give it as a str"):
            find_place(path)


def test_file_urls_are_directories(tmp_path):
    """Percent-encoded as URLs are; anything else than an absolute path is an error."""
    path = tmp_path / "a chain"
    array = np.arange(1000.0)
    url = f"file://{tmp_path}/a%20chain"
    with Checkpointer.open(url, {"a": array}, compression="none") as checkpoints:
        checkpoints.save(wait=True)
    with Chain(url) as chain:
        assert chain.path == path
    assert (load(path)["a"] == array).all()
    assert (load(url)["a"] == array).all()
    assert (load(f"file://localhost{tmp_path}/a%20chain", lazy=True)["a"] == array).all()
    for wrong in ("file://host/x", "file://x", "file:///x?a=b", "file:///x#y"):
        with pytest.raises(StoreError, match="file:///absolute/path"):
            Chain(wrong)
    with pytest.raises(StoreError, match="has no store_options"):
        Chain(url, store_options={"region": "x"})
    with pytest.raises(StoreError, match="has no store_options"):
        Chain(path, store_options={"region": "x"})


def test_a_memory_is_one_for_the_process():
    """Of one name; another name is another one."""
    array = np.arange(1000.0)
    with Checkpointer("memory://one", {"a": array}) as checkpoints:
        checkpoints.save(wait=True)
    with Checkpointer("memory://one/below", {"a": array}) as checkpoints:
        array[0] = 7
        checkpoints.save(wait=True)
    assert load("memory://one/")["a"][0] == 0
    assert load("memory://one/below")["a"][0] == 7
    with Chain(Place().__fspath__().replace("of-a-path", "one")) as chain:
        assert chain.path == "memory://one"
        assert repr(chain) == "<dirtytrack.checkpoint.Chain in memory://one: 1 checkpoints, newest 1>"
    with pytest.raises(StoreError, match="no store_options"):
        Chain("memory://one", store_options={"region": "x"})
    with pytest.raises(StoreError, match="memory://name"):
        Chain("memory://")


@pytest.mark.anywhere
def test_what_a_place_opens(tmp_path):
    """A directory or an object store; a URL stays a str whatever becomes the working directory."""
    undo = Undo()
    assert isinstance(open_store(str(tmp_path), undo), Directory)
    assert isinstance(open_store(f"file://{tmp_path}", undo), Directory)
    store = open_store("s3://bucket/run/", undo, options={"region": "x"}, grace_period=5)
    assert isinstance(store, ObjectStore)
    assert (store.place, store.maps, store.grace_period) == ("s3://bucket/run", False, 5)
    assert store.locate("x") == "s3://bucket/run/data/x"
    assert find_place("s3://bucket/run") == "s3://bucket/run"
    assert find_place("run") == Path("run").absolute()
    undo.close()


@pytest.mark.anywhere
@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        {"region": "x", "endpoint": "http://127.0.0.1:1", "allow_http": True},
        {"region": "x", "allow_http": "true", "timeout": "3s"},
        {"aws_region": "x", "aws_allow_http": "true"},
        {"config": {"aws_region": "x"}, "access_key_id": "k", "secret_access_key": "s"},
        {"client_options": {"allow_http": True, "timeout": timedelta(seconds=3)}, "region": "x"},
        {"retry_config": {"max_retries": 3}, "region": "x"},
        {"virtual_hosted_style_request": False, "region": "x"},
        {"credential_provider": dict, "region": "x"},
    ],
)
def test_options_that_obstore_takes(options, capfd):
    """Wherever they stand, with and without the service's own prefix; and nothing panics."""
    assert open_bucket("s3://bucket/run", options).place == "s3://bucket/run"
    assert capfd.readouterr().err == ""


@pytest.mark.anywhere
@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"region": "x", "aws_region": "y"}, StoreError, "'region' twice"),
        ({"config": {"aws_region": "x"}, "region": "y"}, StoreError, "'region' twice"),
        ({"allow_http": "true", "client_options": {"allow_http": True}}, StoreError, "'allow_http' twice"),
        ({"no_such_thing": "x"}, StoreError, "no_such_thing"),
        ({"client_options": {"no_such_thing": "x"}}, StoreError, "no_such_thing"),
        ({"retry_config": {"max_retries": "many"}}, StoreError, "s3://bucket"),
        ({"region": object()}, TypeError, r"store_options\['region'\]"),
        ({"region": None}, TypeError, r"store_options\['region'\]"),
        ({"config": 7}, TypeError, "mapping"),
        ({7: "x"}, TypeError, "mapping of names"),
        ("region=x", TypeError, "mapping of names"),
    ],
)
def test_options_that_it_does_not_take(options, error, told, capfd):
    """An error of ours that says which; obstore would panic at some, with a BaseException."""
    with pytest.raises(error, match=told):
        open_bucket("s3://bucket/run", options)
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.anywhere
@pytest.mark.parametrize("url", ["s3://", "s3:///run", "az://container/run", "gs://"])
def test_urls_without_what_they_need(url):
    """No bucket, or no account: an error that names the URL."""
    with pytest.raises(StoreError, match=url):
        open_bucket(url, None)


@pytest.mark.anywhere
def test_the_environment_is_asked(monkeypatch):
    """For the client's options, as obstore does for the service's; what is given comes first."""
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_TIMEOUT", "7s")
    store = open_bucket("s3://bucket/run", {"timeout": "8s"})._store
    assert {"allow_http": "true", "timeout": "8s"}.items() <= _plain(store.client_options).items()


def _plain(options):
    return {key: str(value).lower() if isinstance(value, bool) else value for key, value in options.items()}


@pytest.mark.anywhere
def test_without_obstore_the_extra_is_named():
    """Only a URL of an object store needs it."""
    program = """if True:
        import sys
        sys.modules["obstore"] = None
        from dirtytrack.checkpoint import Chain
        for url in ("s3://bucket/x", "memory://x"):
            try:
                Chain(url)
            except ImportError as error:
                print(error)
        """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        's3:// needs obstore: pip install "dirtytrack[cloud]"',
        'memory:// needs obstore: pip install "dirtytrack[cloud]"',
    ]


def test_a_system_without_certificates_is_told_so():
    """Slim images have none; the options, of which obstore's word speaks, are well."""
    program = (
        "from dirtytrack.checkpoint import Chain; Chain('s3://bucket/run', store_options={'region': 'x'})"
    )
    nowhere = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": "/nonexistent"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dirtytrack.errors.StoreError: s3://bucket/run: ")
    assert "install ca-certificates" in last
    assert "Options" not in last


@pytest.mark.anywhere
def test_a_forked_child_is_refused():
    """Its first request would never end; a memory is no matter."""
    open_bucket("s3://bucket/run", {"region": "x"})

    def open_again():
        with pytest.raises(ForkedError, match="spawn"):
            Chain("s3://bucket/run", store_options={"region": "x"})
        open_bucket("memory://of-a-child", None).put("key", b"data")

    in_child(open_again).check()
