"""What is in a bucket for nothing: files that no commit names, and commits that no longer count."""

from __future__ import annotations

from collections.abc import Callable

from dirtytrack.checkpoint.store.bucket import Bucket, Found, retried
from dirtytrack.checkpoint.store.commits import PROBES, CommitLog
from dirtytrack.checkpoint.store.protocol import UnreadableError

DATA = "data/"


def collect(
    bucket: Bucket, log: CommitLog, floor: int, needed: Callable[[int], set[str]], grace_period: float
) -> None:
    """Removes what has been of no use for so many seconds, by the clock of the store.

    Only for who has just made the newest commit, a floor: whoever is about to commit a file that looks
    superfluous now will find that number taken.

    Readers that opened a chain before a floor go on by what was there then. So commits count from the newest
    floor that is older than the grace period.

    Args:
        bucket: of the commits and the files.
        log: of the commits.
        floor: the newest commit.
        needed: names of the files that commits name, from that number on, or that are on their way.
        grace_period: see above.
    """
    commits: dict[int, Found] = retried(log.all)
    if floor not in commits:  # a listing that comes late
        return
    cutoff = commits[floor].modified - grace_period
    oldest = _newest_floor_before(cutoff, log, floor, commits)
    files = [one.key for one in retried(lambda: [*bucket.find(DATA)]) if one.modified <= cutoff]
    keep = needed(oldest)  # asked last: a file may be begun, and be complete, at any time before
    probes = [one.key for one in retried(lambda: [*bucket.find(PROBES)]) if one.modified <= cutoff]
    bucket.delete([key for key in files if key.removeprefix(DATA) not in keep] + probes)
    log.remove([number for number, one in commits.items() if number < oldest and one.modified <= cutoff])


def _newest_floor_before(cutoff: float, log: CommitLog, floor: int, commits: dict[int, Found]) -> int:
    # 0: there is none.
    while floor in commits and commits[floor].modified > cutoff:
        try:
            floor = int(log.read(floor - 1).body["floor"]) if floor - 1 in commits else 0
        except UnreadableError:
            return 0
    return floor if floor in commits else 0
