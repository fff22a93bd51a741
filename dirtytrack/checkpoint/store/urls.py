"""URLs in the place of paths: which store they mean, and what may be said about it."""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dirtytrack.checkpoint.store.obstore_bucket import ObstoreBucket, said
from dirtytrack.errors import ForkedError, StoreError
from dirtytrack.native import lib

StoreOptions = Mapping[str, Any]

SERVICES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
_SCHEMES = (*SERVICES, "memory", "file")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SHORTENED = re.compile(r"([a-z][a-z0-9+.-]*):/(?!/)")  # what a Path makes of a URL
_OF_SERVICE = re.compile("^(aws|azure|google)_")
_VARIABLES = {"s3": "AWS_", "s3a": "AWS_", "gs": "GOOGLE_"}
_EXTRA = 'pip install "dirtytrack[cloud]"'
_NAMED = ("config", "client_options", "retry_config", "credential_provider")
# What obstore takes in client_options, and panics at elsewhere.
_OF_CLIENT = frozenset(
    {
        *("allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type"),
        *("default_headers", "http1_only", "http2_keep_alive_interval", "http2_keep_alive_timeout"),
        *("http2_keep_alive_while_idle", "http2_only", "pool_idle_timeout", "pool_max_idle_per_host"),
        *("proxy_url", "proxy_ca_certificate", "proxy_excludes", "root_certificate"),
        *("randomize_addresses", "read_timeout", "timeout", "user_agent"),
    }
)
# A request that nobody answers is given up, and so is one that fails again and again.
_CLIENT = {"connect_timeout": "10s", "timeout": "120s"}
_RETRY_SECONDS, _RETRIES = 60, 10

_first_process: list[int] = []  # that opened a bucket, as the native code knows it
_memories: dict[str, Any] = {}
_mutex = threading.Lock()


def scheme_of(place: object) -> str | None:
    """What a place begins with if it is a URL, in lower case; None for a path, or what is neither.

    Raises:
        StoreError: of no service that is known here; or it lacks a slash, as a URL does that became a Path.
    """
    text = os.fspath(place) if isinstance(place, str | os.PathLike) else None
    if not isinstance(text, str):
        return None
    match = _SHORTENED.match(text)
    if match is not None and match[1] in _SCHEMES:
        raise StoreError(
            f"{text!r} is no URL: two slashes follow its colon. A Path drops one: give it as a str. A "
            f"directory of that name is './{text}'"
        )
    match = None if isinstance(place, Path) else _URL.match(text)
    if match is None:
        if not text:  # a Path of it would be the working directory
            raise StoreError("the path is empty: name a directory, '.' for this one, or a URL")
        return None
    scheme = match[1].lower()
    if scheme not in _SCHEMES:
        raise StoreError(
            f"{text!r} is a URL of no known kind: they begin with "
            f"{', '.join(f'{one}://' for one in _SCHEMES)}; a directory of that name is './{text}'"
        )
    return scheme


def directory_of(url: str) -> Path:
    """The directory that a ``file://`` URL names.

    Raises:
        StoreError: it names another machine's, or none.
    """
    parts = urlsplit(url)
    if (
        parts.netloc not in ("", "localhost")
        or not parts.path.startswith("/")
        or parts.query
        or parts.fragment
    ):
        raise StoreError(f"{url!r} is not file:///absolute/path")
    return Path(unquote(parts.path))


def open_bucket(url: str, options: StoreOptions | None) -> ObstoreBucket:
    """The bucket, or the part of one, that a URL names. Nothing is asked of the service yet.

    Raises:
        ImportError: without obstore, naming the extra.
        StoreError, TypeError: of the URL, or of the options.
        ForkedError: this process was forked by one that has opened a bucket.
    """
    try:
        import obstore.store  # an extra
    except ImportError as error:
        raise ImportError(f"{scheme_of(url)}:// needs obstore: {_EXTRA}") from error
    place = url.rstrip("/")
    if scheme_of(url) == "memory":
        folder = urlsplit(url).path.strip("/")
        prefix = f"{folder}/" if folder else ""
        return ObstoreBucket(
            place, _memory(url, options), prefix, functools.partial(open_bucket, options=None)
        )
    keywords = _checked(scheme_of(url) or "", options or {})
    _refuse_child(url)
    try:
        store = obstore.store.from_url(url, **keywords)
    except BaseException as error:  # a panic of obstore is one
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        remedy = "Options are the keywords of obstore.store.from_url"
        if "No CA certificates" in str(error):
            remedy = "No CA certificates were found: install ca-certificates, or name a file in SSL_CERT_FILE"
        raise StoreError(f"{url}: {said(error).rstrip('.')}. {remedy}") from error
    return ObstoreBucket(place, store, reopen=functools.partial(open_bucket, options=options))


def _refuse_child(url: str) -> None:
    # obstore has threads, of which a fork makes no copies: the first request would never end.
    if not _first_process:
        _first_process.append(lib.dt_address_space())
    if not lib.dt_is_address_space(_first_process[0]):
        raise ForkedError(
            f"{url} can't be opened in a process forked by one that has opened such a URL: start it "
            'otherwise ("spawn" or "forkserver" of multiprocessing), or open none before the fork'
        )


def _memory(url: str, options: StoreOptions | None) -> Any:
    # Of one name there is one, as long as the process lives.
    from obstore.store import MemoryStore

    parts = urlsplit(url)
    if options:
        raise StoreError(f"{url}: memory takes no store_options")
    if not parts.netloc:
        raise StoreError(f"{url!r} is not memory://name")
    with _mutex:
        return _memories.setdefault(parts.netloc, MemoryStore())


def _checked(scheme: str, options: StoreOptions) -> dict[str, Any]:
    # As obstore takes them: each once, those of its client where they belong.
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise TypeError(f"store_options is a mapping of names to values, not {options!r}")
    for name in ("config", "client_options", "retry_config"):
        if not isinstance(options.get(name) or {}, Mapping):
            raise TypeError(f"store_options[{name!r}] is a mapping, not {options[name]!r}")
    named = {name: options[name] for name in _NAMED if options.get(name) is not None}
    client = dict(named.get("client_options", {}))
    config: dict[str, Any] = {}
    for key, value in [*named.get("config", {}).items(), *options.items()]:
        if key in _NAMED:
            continue
        plain = _OF_SERVICE.sub("", key.lower())
        into = client if plain in _OF_CLIENT else config
        if plain in into or any(plain == _OF_SERVICE.sub("", other) for other in into):
            raise StoreError(f"store_options has {plain!r} twice, under two names")
        into[plain if into is client else key.lower()] = _text(key, value, into is client)
    from datetime import timedelta

    retry = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)}
    checked = {"config": config, "client_options": _CLIENT | _in_environment(scheme) | client}
    checked["retry_config"] = retry | dict(named.get("retry_config", {}))
    if "credential_provider" in named:
        checked["credential_provider"] = named["credential_provider"]
    return checked


def _in_environment(scheme: str) -> dict[str, str]:
    # obstore looks there for its client's options only where none is given.
    prefix = _VARIABLES.get(scheme, "AZURE_")
    names = {option: f"{prefix}{option.upper()}" for option in _OF_CLIENT}
    return {option: os.environ[name] for option, name in names.items() if name in os.environ}


def _text(key: str, value: Any, is_client: bool) -> Any:
    if isinstance(value, bool):
        return value if is_client else str(value).lower()
    if is_client or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise TypeError(f"store_options[{key!r}] is a str, a number or a bool, not {value!r}")
