"""What tasks are about, in words that others know: orders, services, payment requests, traces.

Where nothing is traced it is asked for after the work, and only for runs of a few tasks.
"""

import logging
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from monitoring import tracing
from schemas.errors import first_line

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_TRACES = 128
"""Of one task: a payment request or an e-mail may be about more renewals than a span may have
links."""


@dataclass(frozen=True, slots=True)
class Order:
    """
    Attributes:
        key: by which its upstream knows it.
    """

    upstream: str
    key: str


@dataclass(slots=True)
class Behind:
    """What is behind a task; each in order, without repeats.

    Attributes:
        requests: payment requests.
        traces: the W3C trace contexts in which it is: of its order, or of each renewal that it is
            about; at most :data:`MOST_TRACES`.
    """

    orders: dict[Order, None] = field(default_factory=dict)
    services: dict[uuid.UUID, None] = field(default_factory=dict)
    requests: dict[uuid.UUID, None] = field(default_factory=dict)
    traces: dict[str, None] = field(default_factory=dict)


_BEHIND = text("""
    SELECT subject, upstream, key, service_id, request_id, trace
    FROM work_behind(CAST(:subjects AS uuid[]))
    ORDER BY subject, service_id, trace
""")


def behind(tx: Connection, subjects: Collection[uuid.UUID]) -> dict[uuid.UUID, Behind]:
    """Of each subject that has anything behind it."""
    found: dict[uuid.UUID, Behind] = {}
    for row in tx.execute(_BEHIND, {"subjects": list(subjects)}):
        one = found.setdefault(row.subject, Behind())
        if row.key is not None:
            one.orders[Order(row.upstream, row.key)] = None
        if row.service_id is not None:
            one.services[row.service_id] = None
        if row.request_id is not None:
            one.requests[row.request_id] = None
        if row.trace is not None and len(one.traces) < MOST_TRACES:
            one.traces[row.trace] = None
    return found


def look_up(engine: Engine, subjects: Collection[uuid.UUID]) -> dict[uuid.UUID, Behind]:
    """The same for lines and spans alone: it never raises."""
    try:
        with engine.begin() as tx:
            return behind(tx, subjects)
    except SQLAlchemyError as error:
        log.debug("what is behind tasks cannot be read: %s", first_line(error))
        return {}


def tell_retried(tx: Connection, subjects: Collection[uuid.UUID]) -> None:
    """A span of a person having failed tasks tried again, linked to the traces they are in, with
    one in each of these that links back. Where nothing is traced, nothing is asked."""
    if not (tracing.is_on() and subjects):
        return
    now = time.time_ns()
    found = behind(tx, subjects)
    traces = distinct(trace for one in found.values() for trace in one.traces)[:MOST_TRACES]
    context, end = tracing.begin(
        "retry failed tasks", kind="producer", links=traces, started=now, tasks=len(subjects)
    )
    for trace in traces:
        links = [context] if context else []
        tracing.record("retry failed task", now, time.time_ns(), parent=trace, links=links)
    end()


def distinct(found: Iterable[T]) -> list[T]:
    """Without repeats, in the order in which they come."""
    return list(dict.fromkeys(found))
