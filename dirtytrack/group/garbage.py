"""What no state of a group needs any more: the parts, votes and records of states beyond those to keep."""

from __future__ import annotations

from collections.abc import Sequence

from dirtytrack.checkpoint.records import Bucket, Found, retried
from dirtytrack.errors import ChainError
from dirtytrack.group.record import Record
from dirtytrack.group.records import Records

_SPARED = 1000  # records below the oldest state, of its run


def collect(records: Records, grace_period: float) -> None:
    """Removes what belongs to states that are not to stay.

    Parts of a run that has others are compacted by who writes them. The parts go before the records, so that
    whatever ends this, somebody still knows of what is left.

    Args:
        records: of the group.
        grace_period: seconds for which what is superfluous stays, by the clock of the place, for the sake of
            who reads it.

    Raises:
        ChainError, OSError: as the place says.
    """
    there = retried(records.log.all)
    newest = max(there, default=0)
    settled = [one for one in there if there[newest].modified - there[one].modified >= grace_period]
    record = records.find(max(settled)) if settled else None
    first = None if record is None or not record.oldest else records.find(record.oldest)
    if record is None or first is None:
        return
    superfluous = sorted(number for number in there if not record.stays(number))
    older = _remove_older(records, record.kept, [one for one in superfluous if one < first.opened])
    # Of this run's own, those that a process which is far behind may not have read yet.
    own = [number for number in superfluous if first.opened <= number < record.oldest - _SPARED]
    records.log.remove([*older, *own])


def _remove_older(records: Records, kept: Sequence[int], numbers: list[int]) -> list[int]:
    # Removes the runs of these records of which nothing is kept; the numbers of the records that can go then.
    spared = {one.run for one in map(records.find, kept if numbers else ()) if one is not None}
    older = []
    for number in numbers:
        try:
            one = records.find(number)
        except ChainError:  # it can't say what belongs to it; the others of its run can
            continue
        older.append(number)
        if one is not None and one.run not in spared:
            spared.add(one.run)
            _remove_run(records.bucket, one)
    return older


def _remove_run(bucket: Bucket, record: Record) -> None:
    for prefix in (f"parts/{record.run}/", f"votes/{record.run}/"):
        found: list[Found] = [*bucket.find(prefix)]
        bucket.delete([one.key for one in found])
