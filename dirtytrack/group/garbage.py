"""What no state of a group needs any more: the parts, votes and records of states beyond those to keep."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dirtytrack.checkpoint.records import Bucket, Found, retried
from dirtytrack.group.records import Record, Records

_NUMBER = re.compile(r"records/([0-9]{20})\.json")


def collect(records: Records, run: str, keep: int, grace_period: float) -> None:
    """Removes what is older than the newest states, but for what belongs to a run.

    Parts of the run itself are compacted by who writes them. The parts go before the records, so that
    whatever ends this, somebody still knows of what is left.

    Args:
        records: of the group.
        run: the one that is going on.
        keep: how many states stay.
        grace_period: seconds for which the oldest state that stays has to be superseded, by the clock of
            the place, for the sake of who reads what is removed.

    Raises:
        ChainError, OSError: as the place says.
    """
    states = records.states()
    if len(states) < keep:
        return
    stay = states[-keep:]
    there = retried(records.log.all)
    old = sorted(number for number in there if number < stay[0].number)
    newest = there.get(stay[-1].number)
    first = there.get(stay[0].number)
    if not old or newest is None or first is None or newest.modified - first.modified < grace_period:
        return
    needed = {run} | {folder_run(part.folder) for one in stay for part in one.parts}
    for number in old:
        record = records.find(number)
        if record is not None and record.run not in needed:
            _remove_run(records.bucket, record)
    records.log.remove(old)


def folder_run(folder: str) -> str:
    """The run that writes to the folder of a part."""
    return folder.split("/")[1]


def _remove_run(bucket: Bucket, record: Record) -> None:
    for prefix in (f"parts/{record.run}/", f"votes/{record.run}/"):
        found: Iterable[Found] = retried(lambda prefix=prefix: [*bucket.find(prefix)])  # type: ignore[misc]
        bucket.delete([one.key for one in found])
