"""A simulation of heat in numpy, by phases: which writes what, and how large a checkpoint would be.

Prints what it proves; exits non-zero if it does not hold.
"""

import sys

import numpy as np

import dirtytrack
from dirtytrack.profile import Profile
from dirtytrack.profile.forecast import forecast


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


rows, columns = 1024, 1024
heat = dirtytrack.empty((rows, columns), np.float64)
flow = dirtytrack.empty((rows, columns), np.float64)
history = dirtytrack.empty((200, columns), np.float64)
heat[:] = flow[:] = history[:] = 0
heat[480:544] = 100.0

with dirtytrack.Session() as session:
    for name, array in (("heat", heat), ("flow", flow), ("history", history)):
        session.track(array, name=name)
    with Profile(session, intervals=[0.001]) as profile:
        for step in range(30):
            with profile.phase("diffuse"):
                flow[1:-1] = heat[:-2] - 2 * heat[1:-1] + heat[2:]
            with profile.phase("advance"):
                warm = slice(400, 624)  # the rest has not been reached yet
                heat[warm] += 0.2 * flow[warm]
            with profile.phase("note"):
                history[step] = heat[:, 0]
        report = profile.report()

print(report)
written = {
    (phase.name, report.recording.areas[tally.area].name): tally
    for phase in report.recording.phases
    for tally in phase.tallies
}
prove(
    "each phase wrote its own array, and no other",
    {name for _, name in written} == {"heat", "flow", "history"} and len(written) == 3,
)
prove("advance wrote the warm rows, each in every step", written["advance", "heat"].rewritten == 30)
bytes_of_a_step = sum(tally.nbytes for tally in written.values()) / 30
prove(
    "flow, which could be computed anew, is most of what a checkpoint would hold",
    written["diffuse", "flow"].nbytes / 30 > bytes_of_a_step / 2,
)
prove("there is something to forecast from", bool(forecast(report.recording).deltas))
