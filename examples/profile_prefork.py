"""A pre-fork server: which work of a worker copies pages shared with its parent, and what gc.freeze saves.

Prints what it proves; exits non-zero if it does not hold. The same on a terminal, by process and by memory:
``dirtytrack record --follow-forks -o server profile_prefork.py serve`` and ``dirtytrack report server``.
"""

import gc
import os
import sys


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def serve():
    """The server: three workers, one after the other."""
    catalogue = [{"id": number, "tags": [str(number)] * 3} for number in range(100_000)]  # before the forks

    def worker(collects):
        if os.fork() == 0:
            sum(item["id"] for item in catalogue[:1000])  # requests that only read: they count references
            if collects:
                gc.collect()
            os._exit(0)
        os.wait()

    worker(collects=False)
    worker(collects=True)
    gc.freeze()
    worker(collects=True)


if __name__ == "__main__" and sys.argv[1:] == ["serve"]:
    serve()
elif __name__ == "__main__":
    from dirtytrack.profile.running import record

    report, _ = record([__file__, "serve"], follow_forks=True)
    requests, collection, frozen = (one.nbytes for one in report.recording.processes[1:])
    print(f"a worker's requests copied {requests >> 10:,} KiB")
    print(f"with a garbage collection it was {collection >> 10:,} KiB")
    print(f"after gc.freeze() in the parent {frozen >> 10:,} KiB")
    prove("a garbage collection copies more than the requests before it", collection > 4 * requests)
    prove("gc.freeze spares a worker at least half of that", frozen < collection / 2)
