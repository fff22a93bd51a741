"""How often to save: so that saving and what a failure costs take the least time together."""

from __future__ import annotations

import math
from collections.abc import Callable

_SHORTEST, _LONGEST = 1e-9, 100.0  # of the mean time between failures
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 120


def interval(cost: float | Callable[[float], float], mtbf: float) -> float:
    """Returns the time between two saves, in seconds, after which a program is done soonest.

    What a failure costs is the work since the last save: the more often it is saved, the less. What saving
    costs is *cost*, each time. Failures come at random, *mtbf* seconds apart on average; the time to restart
    does not change the answer. For a cost that is always the same this is Daly's optimum, close to Young's
    ``sqrt(2 * cost * mtbf)``. The derivation is in ``docs/checkpoint.md``.

    Args:
        cost: seconds that a save costs the program: its pause, and the write faults after it. Or a function
            that gives it for a time between two saves, for incremental ones: they cost the more the longer it
            is. It may not fall.
        mtbf: mean time between failures, in seconds; of n machines that need each other, that of one, by n.

    Raises:
        TypeError, ValueError: *mtbf* is not above 0, or *cost* below.
    """
    if isinstance(mtbf, bool) or not isinstance(mtbf, int | float):
        raise TypeError(f"mtbf is a number of seconds, not {mtbf!r}")
    if not 0 < mtbf < math.inf:
        raise ValueError(f"mtbf={mtbf!r}: a number of seconds above 0")
    if not callable(cost):
        fixed = cost
        if isinstance(fixed, bool) or not isinstance(fixed, int | float):
            raise TypeError(f"cost is a number of seconds, or a function of seconds, not {cost!r}")
        if not 0 <= fixed < math.inf:
            raise ValueError(f"cost={cost!r}: a number of seconds, at least 0")
        if fixed == 0:
            return 0.0
        return _least(lambda seconds: _log_time(seconds, fixed, mtbf), mtbf)
    return _least(lambda seconds: _log_time(seconds, cost(seconds), mtbf), mtbf)


def _log_time(seconds: float, cost: float, mtbf: float) -> float:
    # Of the time for a second of work: mtbf * (exp((seconds + cost) / mtbf) - 1) / seconds, but for mtbf.
    if not cost >= 0:
        raise ValueError(f"a save after {seconds} s costs {cost!r} s: it is at least 0")
    exponent = (seconds + cost) / mtbf
    grown = exponent if exponent > 30 else math.log(math.expm1(exponent))
    return grown - math.log(seconds)


def _least(function: Callable[[float], float], mtbf: float) -> float:
    # Golden-section search, in the logarithm of the time. From both sides of the least the function rises.
    low, high = math.log(_SHORTEST * mtbf), math.log(_LONGEST * mtbf)
    for _ in range(_STEPS):
        width = (high - low) * _GOLDEN
        left, right = high - width, low + width
        if function(math.exp(left)) <= function(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)
