"""Collects parts of the metrics by turns, and keeps them in memory for whoever scrapes."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitoring.exporter.families import (
    COLLECTED,
    COLLECTION_SECONDS,
    FAILED_COLLECTIONS,
    FAMILIES,
    Family,
)
from schemas.errors import first_line

log = logging.getLogger(__name__)

# Of the time of one core, or connection, that collecting a part may take: what takes long is
# collected more seldom.
SHARE = 0.005
# A metric that cannot be collected disappears after so many times its interval.
STALE_AFTER = 4

Labels = tuple[str, ...]
# Mappings are invariant in their keys, and tuples of two texts are none of any length.
Found = Mapping[Family, Mapping[Any, float]]
"""Samples: family -> values of its labels, a tuple of texts -> value."""


@dataclass(frozen=True, slots=True)
class Part:
    """Metrics that are collected together.

    Attributes:
        every: seconds between two collections.
        longest: the same at most, however long a collection takes.
        collect: raises whatever keeps it from being done.
    """

    name: str
    every: float
    longest: float
    collect: Callable[[], Found]


@dataclass(slots=True)
class _State:
    found: Found
    interval: float
    next_at: float = 0.0  # monotonic, as fresh_at
    fresh_at: float | None = None
    collected_at: float = 0.0
    seconds: float = 0.0
    failures: int = 0


class Collection(Collector):
    """Parts, and what was found last. It is collected from one thread or several, each with parts
    of its own, and scraped from any."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = {part.name: part for part in parts}
        self._states = {part.name: _State({}, part.every) for part in self._parts.values()}
        self._lock = threading.Lock()

    def round(self, names: Sequence[str]) -> float:
        """Collect those of some parts whose time has come.

        Returns:
            Seconds until the next one's has.
        """
        for name in names:
            if time.monotonic() >= self._states[name].next_at:
                self._collect(self._parts[name], self._states[name])
        next_at = min(self._states[name].next_at for name in names)
        return max(0.05, next_at - time.monotonic())

    def _collect(self, part: Part, state: _State) -> None:
        started = time.monotonic()
        try:
            found = part.collect()
        except Exception as error:
            took = time.monotonic() - started
            level = logging.DEBUG if state.failures and state.fresh_at is None else logging.WARNING
            log.log(level, "metrics of %s cannot be collected: %s", part.name, first_line(error))
            with self._lock:
                state.failures += 1
                state.interval = _interval(part, took)
                state.next_at = time.monotonic() + state.interval
                if state.fresh_at is None or self._is_stale(state):
                    state.found, state.fresh_at = {}, None
            return
        took = time.monotonic() - started
        with self._lock:
            state.found, state.seconds = found, took
            state.fresh_at, state.collected_at = time.monotonic(), time.time()
            state.interval = _interval(part, took)
            state.next_at = state.fresh_at + state.interval

    @staticmethod
    def _is_stale(state: _State) -> bool:
        """Whether nothing newer has come for too long, such as while a collection hangs."""
        limit = STALE_AFTER * state.interval + 30.0
        return state.fresh_at is None or time.monotonic() - state.fresh_at > limit

    def describe(self) -> Iterator[Metric]:
        """So that registering it collects nothing."""
        for family in FAMILIES:
            yield GaugeMetricFamily(family.name, family.says, labels=family.labels)

    def collect(self) -> Iterator[Metric]:
        """All that is fresh."""
        found: dict[Family, dict[Labels, float]] = {family: {} for family in FAMILIES}
        failures = CounterMetricFamily(
            FAILED_COLLECTIONS.name, FAILED_COLLECTIONS.says, labels=FAILED_COLLECTIONS.labels
        )
        with self._lock:
            for name, state in self._states.items():
                failures.add_metric([name], state.failures)
                if state.collected_at:
                    found[COLLECTED][(name,)] = state.collected_at
                    found[COLLECTION_SECONDS][(name,)] = state.seconds
                if not self._is_stale(state):
                    for family, samples in state.found.items():
                        found[family].update(samples)
        for family, samples in found.items():
            if samples:
                metric = GaugeMetricFamily(family.name, family.says, labels=family.labels)
                for labels, value in samples.items():
                    metric.add_metric(labels, value)
                yield metric
        yield failures


def _interval(part: Part, took: float) -> float:
    return min(max(part.every, took / SHARE), part.longest)
