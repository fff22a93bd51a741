"""How often to save: the optimum, against a simulation of failing programs and against the known formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from dirtytrack.checkpoint import interval

pytestmark = pytest.mark.anywhere


def simulated(seconds: float, cost: float, mtbf: float, segments: int = 200_000) -> float:
    """Seconds that a program takes for a second of work, by letting it fail at random."""
    rng = np.random.default_rng(1)  # the same failures for every interval
    needed = seconds + cost
    done = 0
    total = 0.0
    while done < segments:
        failures = rng.exponential(mtbf, segments)
        survived = failures >= needed
        count = int(survived.sum())
        if done + count >= segments:  # cut where the work is done
            last = int(np.flatnonzero(survived)[segments - done - 1]) + 1
            failures, survived, count = failures[:last], survived[:last], segments - done
        total += float(np.where(survived, needed, failures).sum())
        done += count
    return total / (segments * seconds)


@pytest.mark.parametrize(("cost", "mtbf"), [(1.0, 3600.0), (30.0, 600.0), (60.0, 120.0), (0.01, 86400.0)])
def test_no_other_interval_is_better_in_a_simulation(cost: float, mtbf: float) -> None:
    """Who saves as often as told is done sooner than who does so clearly more or less often."""
    best = interval(cost, mtbf)
    at_best = simulated(best, cost, mtbf)
    for factor in (0.4, 2.5):
        assert simulated(best * factor, cost, mtbf) > at_best


@pytest.mark.parametrize("rate", [1e-4, 1e-2, 1.0])
def test_incremental_saves_in_a_simulation(rate: float) -> None:
    """Their cost grows with what was written: no other is clearly better; it is shorter than Young's."""
    mtbf, fixed, everything = 1800.0, 0.2, 20.0

    def cost(seconds: float) -> float:
        return fixed + everything * -math.expm1(-rate * seconds)

    best = interval(cost, mtbf)
    at_best = simulated(best, cost(best), mtbf)
    for factor in (0.3, 3.0):
        assert simulated(best * factor, cost(best * factor), mtbf) > at_best
    assert best <= math.sqrt(2 * cost(best) * mtbf) * 1.01


def test_young_and_daly() -> None:
    """It is what Daly approximates; Young's is near while a save costs little beside the failures."""
    for cost, mtbf in ((1.0, 1e4), (10.0, 1e3), (50.0, 200.0)):
        root = math.sqrt(2 * cost * mtbf)
        part = cost / (2 * mtbf)
        daly = root * (1 + math.sqrt(part) / 3 + part / 9) - cost
        assert interval(cost, mtbf) == pytest.approx(daly, rel=0.01)
    assert interval(1.0, 1e6) == pytest.approx(math.sqrt(2e6), rel=0.01)


def test_it_is_where_the_derivative_is_zero() -> None:
    """Of the exact time: exp((T + C) / M) * (T / M - 1) + 1 = 0, whatever the scale."""
    for cost in (1e-6, 1e-3, 1.0, 1e3):
        mtbf = 500.0
        best = interval(cost, mtbf)
        assert math.exp((best + cost) / mtbf) * (best / mtbf - 1) + 1 == pytest.approx(0, abs=1e-5)


def test_only_the_fixed_part_counts_where_every_write_is_a_new_page() -> None:
    """A cost of a + b * T: sqrt(2 * a * mtbf), by the first order."""
    mtbf = 1e6
    best = interval(lambda seconds: 1.0 + 0.001 * seconds, mtbf)
    assert best == pytest.approx(math.sqrt(2 * 1.0 * mtbf), rel=0.01)


def test_what_costs_nothing_is_done_all_the_time() -> None:
    assert interval(0.0, 100.0) == 0.0


@pytest.mark.parametrize(
    ("cost", "mtbf", "error"),
    [
        (1.0, 0.0, ValueError),
        (1.0, -1.0, ValueError),
        (1.0, math.inf, ValueError),
        (1.0, math.nan, ValueError),
        (-1.0, 10.0, ValueError),
        (math.nan, 10.0, ValueError),
        (lambda seconds: -1.0, 10.0, ValueError),
        ("1", 10.0, TypeError),
        (True, 10.0, TypeError),
        (1.0, "10", TypeError),
    ],
)
def test_what_is_no_number_of_seconds(
    cost: float | Callable[[float], float], mtbf: float, error: type[Exception]
) -> None:
    with pytest.raises(error):
        interval(cost, mtbf)
