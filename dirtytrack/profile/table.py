"""A result as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from dirtytrack._text import columns, duration, plain, shorten, size
from dirtytrack.profile.recording import Recording

HOTTEST = 10  # ranges that are shown
_PROCESSES = 20  # rows of processes
_PHASES = 40  # rows of phases, at most
_LONGEST = 32  # characters of a name


def lines(recording: Recording) -> Iterator[str]:
    """All of it, without a heat map."""
    yield heading(recording)
    yield ""
    yield from columns(phase_rows(recording), "<<>>>>>")
    if recording.processes:
        yield ""
        yield from columns(process_rows(recording), "<>>>>>")
    if len(recording.working_sets):
        yield ""
        yield from columns(working_set_rows(recording), "<>>>")
    if hottest := hottest_rows(recording):
        yield ""
        yield from columns(hottest, "<<>>")
    for note in recording.notes:
        yield ""
        yield plain(note)


def heading(recording: Recording) -> str:
    """One line: what ran, how long, what was watched and what that took."""
    share = recording.overhead / recording.duration if recording.duration else 0.0
    return (
        f"{plain(shorten(recording.program, 60))}: {duration(recording.duration)}, "
        f"{_number(recording.collects)} collects of {size(recording.watched)}, "
        f"{duration(recording.overhead)} of waiting for them ({share:.1%})"
    )


def phase_rows(recording: Recording) -> list[tuple[str, ...]]:
    """By phase and area, the most written first; the titles before them."""
    found = [(phase, tally) for phase in recording.phases for tally in phase.tallies]
    found.sort(key=lambda one: -one[1].nbytes)
    total = sum(tally.nbytes for _, tally in found) or 1
    shown: list[tuple[str, ...]] = [
        (
            plain(shorten(phase.title, _LONGEST)),
            plain(shorten(recording.areas[tally.area].name, _LONGEST)),
            _number(tally.writes),
            size(tally.nbytes),
            f"{tally.nbytes / total:.1%}",
            _number(tally.distinct),
            f"{tally.rewritten:.1f}x",
        )
        for phase, tally in found[:_PHASES]
    ]
    if len(found) > _PHASES:
        shown.append((f"and {len(found) - _PHASES} more", *[""] * 6))
    titles = ("phase", "region", "page-writes", "bytes", "share", "pages", "each")
    return [titles, *shown]


def process_rows(recording: Recording) -> list[tuple[str, ...]]:
    """What each process wrote, those that wrote the most different pages first; the titles before them."""
    found = sorted(recording.processes, key=lambda one: -one.nbytes)
    rows: list[tuple[str, ...]] = [
        (
            f"{one.pid}, of {one.parent}" if one.parent else f"{one.pid}",
            duration(one.start),
            duration(one.stop - one.start),
            _number(one.writes),
            _number(one.distinct),
            size(one.nbytes),
        )
        for one in found[:_PROCESSES]
    ]
    if len(found) > _PROCESSES:
        rows.append((f"and {len(found) - _PROCESSES} more", *[""] * 5))
    return [("process", "from", "for", "page-writes", "pages", "bytes of these"), *rows]


def working_set_rows(recording: Recording) -> list[tuple[str, ...]]:
    """How much is written within each interval."""
    rows = [
        (f"within {duration(one.interval)}", size(round(one.mean)), size(one.peak), _number(one.windows))
        if one.windows
        else (f"within {duration(one.interval)}", "-", "-", "0")
        for one in recording.working_sets
    ]
    return [("written", "mean", "most", "windows"), *rows]


def hottest_rows(recording: Recording) -> list[tuple[str, ...]]:
    """The ranges that were written most often; empty if nothing was written."""
    rows = [
        (plain(shorten(area.name, _LONGEST)), area.place(start, stop), _number(stop - start), _number(writes))
        for area, start, stop, writes in recording.hottest(HOTTEST)
    ]
    return [("hottest", "where", "pages", "page-writes"), *rows] if rows else []


def _number(value: int) -> str:
    return f"{value:,}"
