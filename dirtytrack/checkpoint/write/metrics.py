"""How far a mirror is, as metrics of OpenTelemetry, where its API is installed."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from typing import Any

from dirtytrack.checkpoint.write.mirror import Mirror

_GAUGES = (
    ("dirtytrack.mirror.lag", "s", "since the oldest checkpoint that the mirror lacks was committed", "lag"),
    ("dirtytrack.mirror.behind", "{checkpoint}", "checkpoints that the mirror lacks", "behind"),
)
_COUNTERS = (
    ("dirtytrack.mirror.io", "By", "bytes uploaded to the mirror", "nbytes"),
    ("dirtytrack.mirror.failures", "{failure}", "attempts to upload that failed", "failures"),
)


def publish(mirror: Mirror) -> None:
    """Makes its figures metrics, as long as it lives; nothing where there is no OpenTelemetry."""
    try:
        metrics: Any = importlib.import_module("opentelemetry.metrics")
    except ImportError:
        return
    meter = metrics.get_meter("dirtytrack")
    alive = weakref.ref(mirror)

    def observing(attribute: str) -> Callable[[object], list[Any]]:
        def observe(_options: object) -> list[Any]:
            found = alive()
            if found is None or (figures := found.statistics()).state == "closed":
                return []
            return [metrics.Observation(getattr(figures, attribute), {"url.full": figures.place})]

        return observe

    for name, unit, description, attribute in _GAUGES:
        meter.create_observable_gauge(name, [observing(attribute)], unit=unit, description=description)
    for name, unit, description, attribute in _COUNTERS:
        meter.create_observable_counter(name, [observing(attribute)], unit=unit, description=description)
