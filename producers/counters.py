"""Counters begin at 0 with every label that is known, before anything is counted.

A counter that appears with its first event has no value before it: Prometheus' ``increase()`` and
``rate()`` then miss that event.
"""

from collections.abc import Iterable

from prometheus_client.registry import Collector

from monitoring import metrics
from producers.control.bulk_running import OUTCOMES as BULK_OUTCOMES
from producers.intake import Verdict
from producers.ledger import DESTRUCTIVE_LANE, GUARDED_LANES
from producers.steps import QUEUES, REMIND, STEPS, steps_of
from schemas.events import Kind
from schemas.values import BulkKind, BulkState

# How a task ends, or a start of it.
OUTCOMES = ("done", "again", "retried", "failed", "put_back", "defect")
# What the guard finds: about the fleet, and about ends alone.
LOST_TRACK = ("silence", "time", "clock", "database")
TOO_MANY = "many"
CAUSES = ("database", "system", "defect")


def of_worker(queues: Iterable[str]) -> None:
    for queue in queues:
        for step in steps_of(queue):
            for outcome in OUTCOMES:
                metrics.tasks_ended.labels(queue, step.task, outcome)
            if step.outside:
                metrics.handed_back.labels(queue, step.task)
        metrics.refused_messages.labels(queue)


def publisher_metrics() -> tuple[Collector, ...]:
    """Those of a publisher, which runs in the process that starts a worker group."""
    for kind in Kind:
        if kind is not Kind.WEBHOOK_TEST:
            metrics.events_published.labels(kind)
    _of_loop("events", "broker", "cursor")
    return (metrics.events_published, metrics.event_lag())


def of_relay() -> None:
    for queue in QUEUES:
        metrics.dispatched.labels(queue)
        metrics.messages.labels(queue)
    for state in ("dispatched", "leased"):
        metrics.rescued.labels(state)
    metrics.relay_failures.labels("unroutable")
    _of_loop("relay", "broker")
    _of_guard()


def of_scheduler() -> None:
    for step in STEPS.values():
        if step.scheduled or step.task == REMIND:
            metrics.swept.labels(step.task)
    for kind in BulkKind:
        for outcome in BULK_OUTCOMES:
            metrics.bulk_tasks.labels(kind, outcome)
        for state in (BulkState.DONE, BulkState.HALTED):
            metrics.bulk_operations.labels(kind, state)
    _of_loop("scheduler")
    _of_loop("bulk")
    _of_guard()
    metrics.guard_trips.labels(DESTRUCTIVE_LANE, TOO_MANY)


def of_intake(door: str) -> None:
    for outcome in (*Verdict, "repeated"):
        metrics.documents.labels(door, str(outcome))
    _of_loop("intake", "broker")
    if door == "api":
        _of_loop("api")
    if door == "amqp":
        for outcome in ("sent", "refused", "lost"):
            metrics.replies.labels(outcome)
        _of_loop("replies", "broker")


def of_exporter() -> None:
    _of_loop("exporter")


def _of_loop(name: str, *more: str) -> None:
    for cause in (*CAUSES, *more):
        metrics.loop_failures.labels(name, cause)


def _of_guard() -> None:
    for lane in GUARDED_LANES:
        for reason in LOST_TRACK:
            metrics.guard_trips.labels(lane, reason)
