"""A small recording, made by hand."""

from __future__ import annotations

from dataclasses import replace

from dirtytrack.profile import Area, Column, Count, Phase, Process, Recording, Share, Tally, WorkingSet

_AREA = Area(
    name="<table> \u2028 é",
    kind="region",
    address=1 << 46,
    nbytes=4000 * 8,
    offset=48,
    page_size=4096,
    shape=(40, 100),
    itemsize=8,
    writes=9,
    distinct=3,
    cell=2,
    counts=(Count(0, 1, 5), Count(2, 4, 2)),
    column_cell=1,
)
RECORDING = Recording(
    kind="profile",
    program="train.py --fast",
    started=1.8e9,
    duration=12.5,
    collects=77,
    overhead=0.25,
    watched=32000,
    assumed=0,
    python="3.11.7",
    kernel="6.18",
    areas=(_AREA,),
    phases=(Phase("", 7, 1.5), Phase("step/embed", 70, 11.0, (Tally(0, 9, 9 * 4096, 3),))),
    columns=(
        Column(0.0, 6.0, (Share(0, 1.5, 0), Share(1, 4.5, 5)), {0: (Count(0, 2, 2),)}),
        Column(6.0, 12.5, (Share(1, 6.5, 4),), {0: (Count(7, 8, 4),)}),
    ),
    working_sets=(WorkingSet(1.0, 12, 12.2, 12 * 8192, 12288), WorkingSet(60.0, 0, 0.0, 0, 0)),
    notes=("a note",),
)

# The same of a program that has forked.
FAMILY = replace(
    RECORDING,
    kind="record",
    phases=(RECORDING.phases[0], replace(RECORDING.phases[1], name="process 4712/step", process=1)),
    processes=(Process(4711, 0, 0.0, 12.5, 7, 0, 0, 0), Process(4712, 4711, 1.0, 12.0, 70, 9, 3, 12288)),
)
