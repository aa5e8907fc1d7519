"""Prometheus metrics and their HTTP endpoint. No label is unbounded, such as an id."""

import logging
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
)

from schemas.errors import ConfigurationError
from schemas.settings import Settings

log = logging.getLogger(__name__)

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

tasks_ended = Counter(
    "autorenew_tasks_total", "Tasks by how they ended.", ["queue", "task", "outcome"]
)
task_seconds = Histogram(
    "autorenew_task_batch_seconds",
    "How long a batch of tasks took, from claim to finish.",
    ["queue", "task"],
    buckets=_SECONDS,
)
task_waited = Histogram(
    "autorenew_task_wait_seconds",
    "How long a task was ready before it was started.",
    ["queue", "task"],
    buckets=_SECONDS,
)
tasks_took = Histogram(
    "autorenew_task_seconds",
    "How long a task took, from claim to finish.",
    ["queue", "task"],
    buckets=_SECONDS,
)
batch_size = Histogram(
    "autorenew_task_batch_size", "Tasks in a batch.", ["queue", "task"], buckets=_SIZES
)
calls = Counter(
    "autorenew_calls_total",
    "Calls to gateways and drivers by outcome.",
    ["target", "operation", "outcome"],
)
call_seconds = Histogram(
    "autorenew_call_seconds",
    "How long a call to a gateway or a driver took.",
    ["target", "operation"],
    buckets=_SECONDS,
)
calls_under_way = Gauge(
    "autorenew_calls_under_way",
    "Calls to gateways, drivers and mail servers that are not answered yet.",
    ["task"],
    multiprocess_mode="livesum",
)
handed_back = Counter(
    "autorenew_handed_back_tasks_total",
    "Tasks that a worker had no room to call for, dispatched again.",
    ["queue", "task"],
)
http_requests = Counter(
    "autorenew_http_requests_total",
    "Requests over HTTP that were answered.",
    ["server", "method", "route", "status"],
)
http_seconds = Histogram(
    "autorenew_http_request_seconds",
    "How long it took to answer a request over HTTP.",
    ["server", "route"],
    buckets=_SECONDS,
)
documents = Counter(
    "autorenew_intake_documents_total", "Documents from upstream by outcome.", ["door", "outcome"]
)
replies = Counter("autorenew_intake_replies_total", "Answers over AMQP by outcome.", ["outcome"])
api_limited = Counter(
    "autorenew_api_limited_total", "Requests that were refused because their key asked too often."
)
dispatched = Counter("autorenew_relay_tasks_total", "Tasks handed to the broker.", ["queue"])
messages = Counter("autorenew_relay_messages_total", "Messages handed to the broker.", ["queue"])
relay_failures = Counter("autorenew_relay_failures_total", "Rounds that failed.", ["part"])
rescued = Counter("autorenew_rescued_tasks_total", "Tasks made ready again.", ["state"])
left_out = Counter(
    "autorenew_left_out_services_total",
    "Services that were left out of an e-mail, because nothing can be written about them.",
    ["reason"],
)
reconciliations = Counter(
    "autorenew_reconciliations_total", "Drivers' books that were compared.", ["driver", "outcome"]
)
reconciled_differences = Counter(
    "autorenew_reconciled_differences_total",
    "What a driver's book had otherwise than it should be.",
    ["driver", "difference"],
)
mended_resources = Counter(
    "autorenew_mended_resources_total",
    "Services that are converged again because a driver's book differed.",
    ["driver"],
)
sealed = Counter("autorenew_sealed_events_total", "Events of the history that were sealed.")
swept = Counter("autorenew_swept_services_total", "Services whose next step fell due.", ["step"])
bulk_operations = Counter(
    "autorenew_bulk_operations_total",
    "Bulk operations that came to an end by themselves.",
    ["kind", "state"],
)
bulk_tasks = Counter(
    "autorenew_bulk_tasks_total",
    "Failed tasks that bulk operations sent, and how they ended.",
    ["kind", "outcome"],
)
carried_over = Counter(
    "autorenew_carried_over_services_total",
    "Services that a change of their subsidiary was carried over to.",
    ["subsidiary"],
)
loop_failures = Counter(
    "autorenew_loop_failures_total",
    "Rounds of a background loop that failed.",
    ["loop", "cause"],
)
clock_ahead = Gauge(
    "autorenew_clock_ahead_seconds",
    "By how much this host's clock is ahead of the database's; negative: behind.",
    multiprocess_mode="livemostrecent",
)
breaker = Counter(
    "autorenew_breaker_total",
    "Times the lane of a far side was opened or closed, and probes that failed meanwhile.",
    ["lane", "event"],
)
guard_trips = Counter(
    "autorenew_guard_trips_total", "Times the guard paused a lane.", ["lane", "reason"]
)


@cache
def intake_waiting() -> Gauge:
    """Created in an intake only, so that no other process shows it."""
    return Gauge(
        "autorenew_intake_waiting_documents",
        "Documents in a queue of intake that no intake was given yet; on intake.dead: set aside.",
        ["queue"],
    )


@cache
def bulk_operations_open() -> Gauge:
    """Created in a scheduler only, so that no other process shows it."""
    return Gauge("autorenew_bulk_operations_open", "Bulk operations that have not ended.")


@cache
def changes_overdue() -> Gauge:
    """Created in a scheduler only, so that no other process shows it."""
    return Gauge(
        "autorenew_subsidiary_changes_overdue",
        "Changes of a subsidiary whose day has come and that cannot be put in force yet.",
    )


@cache
def scheduler_last_round() -> Gauge:
    """Created in a scheduler only, so that no other process shows it."""
    return Gauge(
        "autorenew_scheduler_last_round_timestamp_seconds",
        "When the scheduler last finished a round.",
    )


@cache
def relay_last_round() -> Gauge:
    """Created in a relay only: any other process would show a relay that stopped in 1970."""
    return Gauge(
        "autorenew_relay_last_round_timestamp_seconds",
        "When the relay last finished a round.",
        multiprocess_mode="max",
    )


refused_messages = Counter(
    "autorenew_refused_messages_total", "Messages that were not ours to run.", ["queue"]
)


def observe_many(histogram: Histogram, values: Sequence[float]) -> None:
    """Observe several values at once: as ``observe`` of each, at the cost of one or two.

    A call of ``observe`` takes 2 us, or 5 where processes share their metrics; there are thousands
    of tasks a second. It reaches into prometheus-client: a test holds it to what ``observe`` does.

    Args:
        histogram: with its labels.
    """
    if len(values) == 1:
        histogram.observe(values[0])
        return
    ordered = sorted(values)
    histogram._sum.inc(sum(ordered))
    begin = 0
    for bound, bucket in zip(histogram._upper_bounds, histogram._buckets, strict=True):
        end = bisect_right(ordered, bound, begin)
        if end > begin:
            bucket.inc(end - begin)
        begin = end


def serve(settings: Settings, *, registry: CollectorRegistry = REGISTRY) -> int:
    """Serve ``/metrics``; returns the port in use.

    Args:
        registry: what is served.

    Raises:
        ConfigurationError: the port is in use or may not be used.
    """
    try:
        server, _ = start_http_server(
            settings.metrics_port, settings.metrics_host, registry=registry
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot serve metrics on {settings.metrics_host}:{settings.metrics_port}: {error}"
        ) from None
    port = int(server.server_port)
    log.info("metrics on http://%s:%d/metrics", settings.metrics_host, port)
    return port
