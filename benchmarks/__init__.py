"""What tracking costs on this machine, each figure beside its yardstick in the same run.

    harness     interleaved pairs, medians, budgets, skipping what can't be measured here
    report      machine facts, the table, JSON
    fixtures    tracked memory, the bare system call, a C library compiled when the benchmarks run
    tracking    the rows of the tracker, with budgets
    importing   an import, beside numpy's
    costs       what else a user pays, published without budgets: the worst cases are here
    many        one page among thousands of regions, and how every verb grows
    adaptive    hot pages left open, beside a plain session
    huge        cold memory put back on huge pages
    snapshot    diffs, rollbacks and histories beside full copies
    diffs       diffs as bytes and merged, and histories of many states
    checkpoint  the pause, the throughput and the alternatives of a checkpoint
    stores      the same in an object store, beside obstore's own put and ranged reads
    group       one state of two processes, beside a save of one alone
    barrier     cards for a collector, from Python and in C
    company     the verbs, and saves, beside threads that compute
    stopping    scans that stop the other threads
    profiling   who writes: phases and recordings, beside the program alone
    training    trainings of torch, beside torch's own checkpoints and beside none
    payoff      the curve from dirty fraction to time, and when tracking does not pay

A family of rows is a module that declares them with ``@row``; it is run by ``dirtytrack bench``.
"""

FAMILIES = (
    "tracking",
    "many",
    "adaptive",
    "huge",
    "snapshot",
    "diffs",
    "checkpoint",
    "stores",
    "group",
    "barrier",
    "company",
    "stopping",
    "importing",
    "costs",
    "profiling",
    "training",
    "payoff",
)
