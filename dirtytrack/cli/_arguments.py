"""Arguments of verbs, checked."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse: a whole number from *least* on."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, not {text!r}")
        return number

    return parse


def above_zero(text: str) -> float:
    """A type for argparse: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def place(text: str) -> Path | str:
    """A type for argparse: a directory, or a URL as it stands."""
    if not text:  # a Path of it would be the working directory
        raise argparse.ArgumentTypeError("the path is empty")
    return text if "://" in text else Path(text)


def add_store_options(option: Callable[..., argparse.Action]) -> None:
    """Declares ``--store-option``, for `store_options`."""
    option(
        "--store-option",
        metavar="KEY=VALUE",
        dest="store_options",
        type=_store_option,
        action="append",
        default=[],
        help="of a URL, a keyword of obstore.store.from_url such as endpoint or region; may be repeated",
    )


def store_options(given: Iterable[tuple[str, Any]], *places: Path | str) -> list[dict[str, Any] | None]:
    """What was given, for those of the places that are URLs; for the first one if none is."""
    options: dict[str, Any] = {}
    for key, value in given:
        whole, _, part = key.partition(".")
        if part:
            options.setdefault(whole, {})[part] = int(value) if whole == "retry_config" else value
        else:
            options[key] = value
    far = [isinstance(one, str) for one in places]
    return [(options or None) if is_far or not any(far) else None for is_far in far]


def _store_option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals or (key.startswith("retry_config.") and not value.isdecimal()):
        raise argparse.ArgumentTypeError(f"KEY=VALUE, in retry_config whole numbers, not {text!r}")
    return key, value


def compact_options(args: argparse.Namespace) -> dict[str, Any]:
    """What a compaction is told, of a chain or of a group."""
    return {
        "keep": args.keep,
        "compression": args.compression,
        "fsync": not args.no_fsync,
        "lock": args.lock,
        "store_options": store_options(args.store_options, args.path)[0],
        "grace_period": args.grace_period,
    }
