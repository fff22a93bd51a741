"""Two cursors on one session: each sees every write, at its own pace, and an aborted epoch comes back.

Prints what it proves; exits non-zero if it does not hold.
"""

import mmap
import sys

import dirtytrack


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


page = mmap.PAGESIZE
memory = dirtytrack.alloc(64 * page)

with dirtytrack.Session() as session:
    region = session.track(memory, name="heap")
    mirror = session.cursor("mirror")  # copies often
    auditor = session.cursor("auditor")  # looks now and then

    memory[3 * page] = 1
    with mirror.collect() as epoch:
        prove("the mirror sees page 3", epoch[region] == {3})

    memory[5 * page] = 1
    with mirror.collect() as epoch:
        prove("the mirror's next epoch has page 5 only", epoch[region] == {5})
    with auditor.collect() as epoch:
        prove("the auditor sees both, though the mirror collected twice", epoch[region] == {3, 5})

    memory[7 * page] = 1
    try:
        with mirror.collect() as epoch:
            raise OSError("disk full")
    except OSError as error:
        print(f"the copy failed: {error}")
    memory[9 * page] = 1
    with mirror.collect() as epoch:
        prove("the failed epoch's page 7 is in the next one, with 9", epoch[region] == {7, 9})

    memory[11 * page] = 1
    early = mirror.collect()
    memory[13 * page] = 1
    late = mirror.collect()
    early.abort()  # explicit, and in any order, also after newer epochs
    prove("the later epoch keeps its own page", late[region] == {13})
    with mirror.collect() as epoch:
        prove("the aborted one's page is reported again", epoch[region] == {11})
    with auditor.collect() as epoch:
        prove("none of this touched the auditor's view", epoch[region] == {7, 9, 11, 13})
