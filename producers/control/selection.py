"""Which tasks a person means: filters in, exact (step, subject) pairs out, in one place.

Lists, bulk operations and whatever is built on them later select with :func:`find`, and act on what
it returned and on nothing else. A filter that names nothing known is an error and never "none".
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from producers.control import lanes, naming
from producers.control.naming import UnknownName
from producers.steps import QUEUES, STEPS, UNIVERSES, driver_place
from schemas.reasons import REASONS


class State(StrEnum):
    """What a task is waiting for, as a person sees it."""

    READY = "ready"  # to be handed over
    WAITING = "waiting"  # for its time
    BACKING_OFF = "backing_off"  # after a failure, until its next attempt
    DISPATCHED = "dispatched"  # handed to the broker, not claimed
    LEASED = "leased"  # being worked on
    PAUSED = "paused"  # ready or dispatched, and its lane is paused or open
    FAILED = "failed"  # for a person


class TaskId(NamedTuple):
    """What a task is known by: there is at most one of each."""

    name: str
    subject: uuid.UUID


@dataclass(frozen=True, slots=True)
class Filters:
    """Which tasks; those that fit all of it. Empty: every one.

    Attributes:
        names: any of these: the id of a subject (its tasks and no others); or, for all that is
            about it, ``order:KEY``, ``service:ID``, ``customer:ID``, ``domain:NAME``, or such a
            key, id or name alone.
        states: any of these.
        step: the name of the task, such as ``charge``.
        driver, universe: of converging, with this driver, on this universe's queue.
        reason: why it backs off or has failed: our reason, or the far side's own code.
        code: the far side's own code and no other; ``(none)``: it gave none.
        plan: of a service it is about.
        customer, order, service: what it is about, by its id, or key.
        upstream: whose order keys are meant; needed where several use the same.
        older_than: since it first failed; of one that did not, since it was ready.
        since: it has failed, or became ready, at this moment or later; or within this time.
    """

    names: tuple[str, ...] = ()
    states: frozenset[State] = frozenset()
    queue: str | None = None
    step: str | None = None
    lane: str | None = None
    driver: str | None = None
    universe: str | None = None
    reason: str | None = None
    code: str | None = None
    plan: str | None = None
    customer: str | None = None
    order: str | None = None
    service: str | None = None
    upstream: str | None = None
    older_than: timedelta | None = None
    since: datetime | timedelta | None = None

    def __bool__(self) -> bool:
        """Whether anything is filtered by; whose order keys are meant filters nothing."""
        return any(getattr(self, f.name) for f in fields(self) if f.name != "upstream")


ALL = Filters()


@dataclass(frozen=True, slots=True)
class Task:
    """A task and where it stands.

    Attributes:
        until: when it is tried again, rescued, or loses its lease.
        since: when it became ready, or failed; None: it waits for its time.
        first_failed_at: when it failed for the first time, whatever was retried since.
        attempts: that failed since it was last enqueued or retried.
        total_attempts: that failed in all.
        batch: that it is in.
        is_lane_paused: no task of its lane is started.
        code: the far side's own reason, beside ours.
    """

    name: str
    subject: uuid.UUID
    queue: str
    lane: str
    state: State
    until: datetime | None
    since: datetime | None
    first_failed_at: datetime | None
    attempts: int
    total_attempts: int
    reason: str | None
    error: str | None
    batch: uuid.UUID | None
    is_lane_paused: bool
    code: str | None = None

    @property
    def id(self) -> TaskId:
        return TaskId(self.name, self.subject)


@dataclass(frozen=True, slots=True)
class Selection:
    """What was found.

    Attributes:
        total: how many tasks fit, of which ``tasks`` are some.
        skipped: how many of them come before the first of ``tasks``.
        unmatched: names that are known and have no such task; empty if ``tasks`` are not all.
    """

    tasks: list[Task]
    total: int
    unmatched: tuple[str, ...] = ()
    skipped: int = 0

    @property
    def more(self) -> int:
        return self.total - self.skipped - len(self.tasks)


# Whether a task ``t`` fits what follows from other tables or more than one of its columns.
FITS = """
          (CAST(:step AS text) IS NULL OR t.name = :step)
      AND (CAST(:queue AS text) IS NULL OR t.queue = :queue)
      AND (CAST(:universe AS text) IS NULL OR t.queue = :universe)
      AND (CAST(:lane AS text) IS NULL OR t.lane = :lane)
      AND (CAST(:driver AS text) IS NULL OR t.lane = 'driver:' || :driver)
      AND (CAST(:reason AS text) IS NULL OR t.reason = :reason OR t.code = :reason)
      AND (CAST(:code AS text) IS NULL OR coalesce(t.code, '(none)') = :code)
      AND (CAST(:subjects AS uuid[]) IS NULL OR t.subject = ANY(:subjects))
      AND (CAST(:older_than AS float8) IS NULL OR coalesce(t.first_failed_at, t.run_at)
           < clock_timestamp() - make_interval(secs => :older_than))
      AND (CAST(:since AS timestamptz) IS NULL OR t.run_at >= :since)
      AND (CAST(:within AS float8) IS NULL
           OR t.run_at >= clock_timestamp() - make_interval(secs => :within))
      AND (CAST(:plan AS text) IS NULL OR CASE t.name WHEN 'converge'
           THEN EXISTS (SELECT FROM services AS s WHERE s.id = t.subject AND s.plan = :plan)
           ELSE EXISTS (SELECT FROM services AS s WHERE s.plan = :plan AND s.id IN (
               SELECT t.subject
               UNION ALL SELECT l.service_id FROM request_lines AS l WHERE l.request_id = t.subject
               UNION ALL SELECT n.service_id FROM notices AS n WHERE n.email_id = t.subject))
             OR EXISTS (SELECT FROM order_lines AS l WHERE l.order_id = t.subject
                 AND l.plan = :plan) END)
"""

# Each part has an index of its own: what has failed, what is in no batch, what is in one.
_FIND = text(f"""
    WITH stored AS (
        SELECT name, subject, queue, lane, 'failed' AS state, NULL::timestamptz AS until,
            least(run_at, clock_timestamp()) AS run_at, first_failed_at, attempts, total_attempts,
            reason, code, error, NULL::uuid AS batch
        FROM tasks WHERE :failed AND state = 'failed'
        UNION ALL
        SELECT name, subject, queue, lane,
            CASE WHEN run_at <= clock_timestamp() THEN 'ready'
                WHEN reason IS NULL THEN 'waiting' ELSE 'backing_off' END,
            CASE WHEN run_at > clock_timestamp() THEN run_at END,
            run_at, first_failed_at, attempts, total_attempts, reason, code, error, NULL
        FROM tasks WHERE :unbatched AND state = 'ready' AND NOT batched
        UNION ALL
        SELECT t.name, t.subject, t.queue, t.lane, b.state,
            CASE WHEN b.state <> 'ready' THEN b.until END,
            t.run_at, t.first_failed_at, t.attempts, t.total_attempts, t.reason, t.code, t.error,
            b.id
        FROM batches AS b CROSS JOIN LATERAL unnest(b.subjects) AS s(subject)
        JOIN tasks AS t ON t.name = b.name AND t.subject = s.subject AND t.state = 'ready'
        WHERE :batched
          AND (CAST(:queue AS text) IS NULL OR b.queue = :queue)
          AND (CAST(:lane AS text) IS NULL OR b.lane = :lane)
    ), told AS (
        SELECT s.*, p.lane IS NOT NULL AS is_lane_paused,
            CASE WHEN p.lane IS NOT NULL AND s.state IN ('ready', 'dispatched') THEN 'paused'
                ELSE s.state END AS shown
        FROM stored AS s LEFT JOIN (
            SELECT lane FROM lane_pauses UNION SELECT lane FROM lane_breakers
        ) AS p ON p.lane = s.lane
    )
    SELECT name, subject, queue, lane, shown AS state, until,
        CASE WHEN run_at <= clock_timestamp() THEN run_at END AS since, first_failed_at,
        attempts, greatest(total_attempts, attempts) AS total_attempts, reason, error, batch,
        is_lane_paused, code, count(*) OVER () AS total
    FROM told AS t
    WHERE {FITS} AND shown = ANY(:states)
    ORDER BY queue, name, reason NULLS FIRST, coalesce(first_failed_at, run_at), subject
    LIMIT :limit OFFSET :skip
""")
_IS_REASON = text("SELECT 1 FROM tasks WHERE reason = :reason OR code = :reason LIMIT 1")
_IS_UPSTREAM = text("SELECT 1 FROM orders WHERE upstream = :upstream LIMIT 1")
_IS_PLAN = text("SELECT 1 FROM plans WHERE code = :plan")
_IN_NO_BATCH = {State.READY, State.WAITING, State.BACKING_OFF, State.PAUSED}
_IN_A_BATCH = {State.READY, State.DISPATCHED, State.LEASED, State.PAUSED}


def find(
    tx: Connection, filters: Filters = ALL, *, limit: int | None = None, skip: int = 0
) -> Selection:
    """Find tasks: by queue, step and reason, in each the one that has failed for longest first.

    Args:
        limit: how many of them at most.
        skip: how many before them are left out.

    Raises:
        UnknownName: a filter names nothing that is known.
        UnknownLane: it names no lane.
    """
    named, parameters = resolve(tx, filters)
    states = filters.states or frozenset(State)
    asked = parameters | {
        "failed": State.FAILED in states,
        "unbatched": bool(states & _IN_NO_BATCH),
        "batched": bool(states & _IN_A_BATCH),
        "states": sorted(states),
        "limit": limit,
        "skip": skip,
    }
    found = tx.execute(_FIND, asked).all()
    total = found[0].total if found else _total(tx, asked) if skip else 0
    tasks = [
        Task(row.name, row.subject, row.queue, row.lane, State(row.state), *row[5:15])
        for row in found
    ]
    subjects = {task.subject for task in tasks}
    is_part = total > len(tasks) or skip > 0
    unmatched = () if is_part else tuple(n for n, s in named.items() if not s & subjects)
    return Selection(tasks, total, unmatched, min(skip, total))


def _total(tx: Connection, asked: dict[str, Any]) -> int:
    """How many there are, where what was asked for begins after the last of them."""
    first = tx.execute(_FIND, asked | {"limit": 1, "skip": 0}).first()
    return first.total if first else 0


def resolve(
    tx: Connection, filters: Filters
) -> tuple[dict[str, frozenset[uuid.UUID]], dict[str, Any]]:
    """What filters mean.

    Returns:
        Each name with the subjects that it means; and the parameters of :data:`FITS`.

    Raises:
        UnknownName: a filter names nothing that is known.
        UnknownLane: it names no lane.
    """
    _check(tx, filters)
    named = _named(tx, filters)
    return named, {
        "queue": filters.queue,
        "universe": filters.universe,
        "step": filters.step,
        "lane": filters.lane,
        "driver": filters.driver,
        "reason": filters.reason,
        "code": filters.code,
        "plan": filters.plan,
        "subjects": _subjects(tx, filters, named.values()),
        "older_than": None if filters.older_than is None else filters.older_than.total_seconds(),
        "since": None if isinstance(filters.since, timedelta) else filters.since,
        "within": (filters.since.total_seconds() if isinstance(filters.since, timedelta) else None),
    }


def _named(tx: Connection, filters: Filters) -> dict[str, frozenset[uuid.UUID]]:
    """Name -> the subjects that it means; every name that is wrong is told at once."""
    named = {}
    wrong = []
    for name in filters.names:
        try:
            named[name] = naming.subjects_of(tx, name, upstream=filters.upstream)
        except UnknownName as error:
            wrong.append(str(error))
    if wrong:
        raise UnknownName("\n".join(wrong))
    return named


def _check(tx: Connection, filters: Filters) -> None:
    if filters.queue is not None and filters.queue not in QUEUES:
        raise UnknownName(f"there is no queue {filters.queue!r}; there are {', '.join(QUEUES)}")
    if filters.step is not None and filters.step not in STEPS:
        raise UnknownName(f"there is no step {filters.step!r}; there are {', '.join(STEPS)}")
    if filters.universe is not None and filters.universe not in UNIVERSES:
        raise UnknownName(
            f"there is no universe {filters.universe!r}; there are {', '.join(UNIVERSES)}"
        )
    if filters.lane is not None:
        lanes.check(tx, filters.lane)
    if (
        filters.upstream is not None
        and tx.execute(_IS_UPSTREAM, {"upstream": filters.upstream}).first() is None
    ):
        raise UnknownName(f"there is no order of an upstream {filters.upstream!r}")
    if filters.driver is not None:
        _check_driver(tx, filters.driver)
    if filters.plan is not None and tx.execute(_IS_PLAN, {"plan": filters.plan}).first() is None:
        raise UnknownName(f"there is no plan {filters.plan!r}; see `autorenew catalogue list`")
    if (
        filters.reason is not None
        and filters.reason not in REASONS
        and tx.execute(_IS_REASON, {"reason": filters.reason}).first() is None
    ):
        raise UnknownName(
            f"nothing fails for the reason {filters.reason!r}; there are"
            f" {', '.join(sorted(REASONS))}"
        )


def _check_driver(tx: Connection, driver: str) -> None:
    try:
        lanes.check(tx, driver_place(UNIVERSES[0], driver).lane)
    except lanes.UnknownLane:
        raise UnknownName(
            f"nothing was ever asked of a driver {driver!r}; see `autorenew lanes list`"
        ) from None


def _subjects(
    tx: Connection, filters: Filters, named: Iterable[frozenset[uuid.UUID]]
) -> list[uuid.UUID] | None:
    """Those that fit every filter that names some; None: no filter does."""
    wanted: list[frozenset[uuid.UUID]] = []
    if filters.names:
        wanted.append(frozenset().union(*named))
    for kind in ("customer", "order", "service"):
        if (name := getattr(filters, kind)) is not None:
            about = naming.subjects_of(tx, f"{kind}:{name}", upstream=filters.upstream)
            wanted.append(about)
    return sorted(frozenset.intersection(*wanted)) if wanted else None


@dataclass(frozen=True, slots=True)
class About:
    """Whom a task is about.

    Attributes:
        kind: of its subject: ``service``, ``order``, ``payment request``, ``e-mail``.
        services: the service; those that the payment request asks for, or that the e-mail tells of.
        domains, plans: of these.
        state, desired: of the service it is about, if it is about one alone.
    """

    kind: str | None = None
    customer: str | None = None
    order_key: str | None = None
    services: tuple[uuid.UUID, ...] = ()
    domains: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    state: str | None = None
    desired: str | None = None


_DESCRIBE = text("""
    SELECT w.subject,
        CASE WHEN s.id IS NOT NULL THEN 'service' WHEN o.id IS NOT NULL THEN 'order'
            WHEN r.id IS NOT NULL THEN 'payment request' WHEN coalesce(e.id, n.id) IS NOT NULL
                THEN 'e-mail' END
            AS kind,
        coalesce(s.customer_id, o.customer_id, r.customer_id, e.customer_id, n.customer_id)
            AS customer,
        coalesce(o.key, so.key, ro.key) AS order_key,
        about.services, about.domains, about.plans, s.state, s.desired
    FROM unnest(CAST(:subjects AS uuid[])) AS w(subject)
    LEFT JOIN services AS s ON s.id = w.subject
    LEFT JOIN orders AS so ON so.id = s.order_id
    LEFT JOIN orders AS o ON o.id = w.subject
    LEFT JOIN payment_requests AS r ON r.id = w.subject
    LEFT JOIN orders AS ro ON ro.id = r.order_id
    LEFT JOIN emails AS e ON e.id = w.subject
    LEFT JOIN link_emails AS n ON n.id = w.subject
    CROSS JOIN LATERAL (
        SELECT array_agg(a.id ORDER BY a.id) AS services,
            array_agg(DISTINCT a.configuration->>'domain')
                FILTER (WHERE a.configuration->>'domain' IS NOT NULL) AS domains,
            array_agg(DISTINCT a.plan) AS plans
        FROM services AS a WHERE a.id IN (
            SELECT s.id
            UNION SELECT l.service_id FROM request_lines AS l WHERE l.request_id = r.id
            UNION SELECT t.service_id FROM notices AS t WHERE t.email_id = e.id
            UNION SELECT d.id FROM services AS d WHERE d.order_id = o.id
        )
    ) AS about
""")


def describe(tx: Connection, tasks: Sequence[Any]) -> dict[uuid.UUID, About]:
    """Subject -> whom it is about, for tasks or whatever else has a ``subject``."""
    subjects = sorted({task.subject for task in tasks})
    return {
        row.subject: About(
            row.kind, row.customer, row.order_key, tuple(row.services or ()),
            tuple(row.domains or ()), tuple(row.plans or ()), row.state, row.desired,
        )
        for row in tx.execute(_DESCRIBE, {"subjects": subjects})
    }  # fmt: skip
