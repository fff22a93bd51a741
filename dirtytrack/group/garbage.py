"""What no state of a group needs any more: the parts, votes and records of states beyond those to keep."""

from __future__ import annotations

from dirtytrack.checkpoint.records import Bucket, Found, retried
from dirtytrack.errors import ChainError
from dirtytrack.group.records import Record, Records

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
    floor = 0 if record is None else record.oldest
    first = records.find(floor) if floor else None
    if first is None:
        return
    older = []
    gone: set[str] = set()
    for number in sorted(one for one in there if one < first.opened):  # of runs of which nothing stays
        try:
            one = records.find(number)
        except ChainError:  # it can't say what belongs to it; the others of its run can
            continue
        older.append(number)
        if one is not None and one.run not in gone:
            gone.add(one.run)
            _remove_run(records.bucket, one)
    # Of this run's own, those that a process which is far behind may not have read yet.
    own = [number for number in there if first.opened <= number < floor - _SPARED]
    records.log.remove([*older, *own])


def _remove_run(bucket: Bucket, record: Record) -> None:
    for prefix in (f"parts/{record.run}/", f"votes/{record.run}/"):
        found: list[Found] = [*bucket.find(prefix)]
        bucket.delete([one.key for one in found])
