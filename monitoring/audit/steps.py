"""What is next for each service, decided anew by the rule itself and compared with what is stored.

What is stored was decided when a fact changed last, and some of the rule looks at the time: so each
answer that the rule has given since, as time alone passed, is as good.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import text

from monitoring.audit.checks import Books, Check, Offence, Since, sql
from schemas.catalogue import Catalogue
from schemas.clock import local_date, local_midnight, zone
from schemas.rules import lifecycle, sellable
from schemas.rules.days import REMINDER_HOUR
from schemas.rules.facts import Cycle, Service
from schemas.rules.lifecycle import NextStep, Step
from schemas.rules.notices import Notice
from schemas.rules.policies import Policy
from schemas.values import (
    Money,
    Period,
    RenewalMode,
    ResourceState,
    ServiceState,
    derived_id,
)

# How many columns tell services apart, and of how many kinds of them the answer is kept.
_OWN, _ALIKE = 7, 100_000
_Stored = tuple[str | None, datetime | None]

_INSTANT = timedelta(microseconds=1)
_DAY = timedelta(days=1)

# First what tells services apart, then all that the rule looks at: alike for many of them.
_SERVICES = text("""
    SELECT s.id, s.customer_id, s.payment_method_id, s.next_step, s.next_step_at, s.next_subject,
        r.request_id,
        s.subsidiary, s.plan, s.brand, s.period_months, s.anchor, s.paid_periods, s.state,
        s.desired, s.mode, s.mode_changed_at, s.suspended_at, s.held_at, s.taken_over_at,
        s.agreed_version, r.net, r.currency, r.announced_at, r.raised_at, r.stands_until,
        coalesce(r.dearer, 0) AS dearer, r.dearer_at, r.request_id IS NOT NULL AS requested,
        r.asked_at, coalesce(r.declines, 0) AS declines, r.declined_at, r.last_declined_at,
        CAST(n.notices AS text) AS notices, CAST(n.refused AS text) AS refused
    FROM services AS s
    LEFT JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
    LEFT JOIN (
        SELECT n.service_id, n.expires_at, json_object_agg(n.kind, e.sent_at) AS notices,
            json_object_agg(n.kind, e.refused_at) FILTER (WHERE e.refused_at IS NOT NULL)
                AS refused
        FROM notices AS n JOIN emails AS e ON e.id = n.email_id
        WHERE n.service_id BETWEEN :low AND :high
        GROUP BY n.service_id, n.expires_at
    ) AS n ON n.service_id = s.id AND n.expires_at = s.expires_at
    WHERE s.id BETWEEN :low AND :high AND s.anchor IS NOT NULL
      AND (s.state IN ('active', 'suspended') OR s.next_step IS NOT NULL)
""")
_NOT_THERE = text("""
    SELECT id FROM services
    WHERE id BETWEEN :low AND :high AND anchor IS NULL
      AND (next_step, next_step_at) IS DISTINCT FROM (NULL, NULL)
""")
# Of few services: those on an open request.
_REQUESTS = text("""
    SELECT p.id, p.payment_method_id,
        (p.country, p.vat_number) IS DISTINCT FROM (c.country, c.vat_number)
            OR coalesce(p.created_at < u.changed_at, false) AS basis_changed,
        EXISTS (SELECT FROM charges AS g
            WHERE g.request_id = p.id AND g.state IN ('started', 'unknown')) AS charging
    FROM payment_requests AS p JOIN customers AS c ON c.id = p.customer_id
    JOIN subsidiaries AS u ON u.code = p.subsidiary
    WHERE p.order_id IS NULL AND p.state = 'open'
""")
_TASKS = text("""
    SELECT name, subject FROM tasks
    WHERE name IN ('request', 'withdraw', 'charge', 'suspend', 'terminate', 'remind', 'converge')
""")
# Only an e-mail of the day puts a reminder off to another day.
_WRITTEN_TO = text("""
    SELECT customer_id, max(day) AS day FROM emails
    WHERE begun_at IS NOT NULL AND day >= CAST(:now AS timestamptz)::date - 2
    GROUP BY customer_id
""")
_TOLD_BY = text("""
    SELECT n.service_id, n.email_id FROM notices AS n JOIN tasks AS t ON t.subject = n.email_id
    WHERE t.name = 'remind' AND n.service_id BETWEEN :low AND :high
""")
_RECOMPUTED = text("SELECT plans, brand, subsidiary, change_id, after FROM recomputations")


@dataclass(slots=True)
class _Facts:
    """What stands beside services."""

    requests: Mapping[uuid.UUID, Any]
    tasks: set[tuple[str, uuid.UUID]]
    busy: set[uuid.UUID]
    telling: set[uuid.UUID]
    written_to: Mapping[str, Any]
    recomputed: list[Any]

    @classmethod
    def of(cls, books: Books) -> "_Facts":
        tasks = {(row.name, row.subject) for row in books.rows(_TASKS)}
        return cls(
            requests={row.id: row for row in books.rows(_REQUESTS)},
            tasks=tasks,
            busy={subject for _, subject in tasks},
            telling={row.service_id for row in books.rows(_TOLD_BY)},
            written_to={row.customer_id: row.day for row in books.rows(_WRITTEN_TO)},
            recomputed=list(books.rows(_RECOMPUTED)),
        )

    def is_decided_again(self, row: Any) -> bool:
        """Whether a change of the catalogue is still to be carried over to it."""
        return any(
            (r.plans is None or row.plan in r.plans)
            and r.brand in (None, row.brand)
            and r.subsidiary in (None, row.subsidiary)
            and (r.after is None or r.after < row.id)
            for r in self.recomputed
        )

    def is_worked_on(self, row: Any) -> bool:
        """Whether a task is there whose end decides what is next."""
        return (
            row.id in self.busy
            or row.next_subject in self.busy
            or row.request_id in self.busy
            or row.id in self.telling
        )


def _wrong_steps(books: Books) -> Iterator[Offence]:
    for row in books.rows(_NOT_THERE):
        yield Offence("service", str(row.id))
    facts, catalogue, now = _Facts.of(books), books.catalogue, books.now
    alike: dict[tuple[Any, ...], tuple[Service, Policy, _Stored]] = {}
    for row in books.stream(_SERVICES):
        known = alike.get(seen := row[_OWN:])
        if known is None:
            service, policy = _service(row, catalogue), catalogue.known_plan(row.plan).policy
            known = service, policy, _as_stored(lifecycle.next_step(service, policy, now))
            if len(alike) >= _ALIKE:
                alike.clear()
            alike[seen] = known
        service, policy, step = known
        stored = (row.next_step, row.next_step_at)
        if (row.next_step is None) != (row.next_step_at is None):
            yield Offence("service", str(row.id))
            continue
        if stored == step and _is_subject(row, catalogue, facts):
            continue
        if facts.is_worked_on(row) or facts.is_decided_again(row):
            continue
        if not _is_subject(row, catalogue, facts) or stored not in _answers(
            row, service, policy, now, facts
        ):
            yield Offence("service", str(row.id))


def _as_stored(step: NextStep | None) -> _Stored:
    return (None, None) if step is None else (step.step.value, step.at)


def _answers(
    row: Any, service: Service, policy: Policy, now: datetime, facts: _Facts
) -> set[_Stored]:
    """All that the rule may have said since a fact changed last."""
    views = [service]
    if (request := facts.requests.get(row.request_id)) is not None:
        # Not every role sees what has become of an open request.
        cycle = replace(
            service.cycle,
            charging=request.charging,
            basis_changed=request.basis_changed,
            method_changed=request.payment_method_id != row.payment_method_id,
        )
        views.append(replace(service, cycle=cycle))
    views += [
        replace(view, quiet_until=quiet)
        for view in list(views)
        for quiet in _quiet_until(row, service, now, facts)
    ]
    moments = {now}
    for turn in (service.starts_at, service.behind_at(policy), service.cycle.stands_until):
        if turn is not None and turn <= now:
            moments.add(turn - _INSTANT)
    return {
        _as_stored(lifecycle.next_step(view, policy, moment))
        for view in views
        for moment in moments
    }


def _quiet_until(row: Any, service: Service, now: datetime, facts: _Facts) -> Iterator[datetime]:
    """The mornings to which the next e-mail to its customer can have been put off."""
    days = {local_date(now, service.timezone)}
    if (written_on := facts.written_to.get(row.customer_id)) is not None:
        days.add(written_on + _DAY)
    if row.next_step == Step.REMIND and row.next_step_at <= now:
        days.add(local_date(row.next_step_at, service.timezone))
    for day in days:
        morning = datetime.combine(day, time(REMINDER_HOUR), zone(service.timezone))
        yield morning.astimezone(UTC)


def _is_subject(row: Any, catalogue: Catalogue, facts: _Facts) -> bool:
    """Whether the step's task is about whom it should be."""
    if row.next_step is None:
        return True
    if row.next_step == Step.CHARGE and row.request_id is not None:
        return bool(row.next_subject == row.request_id)
    if row.next_step != Step.REQUEST:
        return bool(row.next_subject == row.id)
    if row.next_subject == row.id:  # asked for alone, after it could not be with others
        return (Step.REQUEST.value, row.id) in facts.tasks
    subsidiary = catalogue.subsidiary(row.subsidiary)
    fixed = row.currency == subsidiary.currency
    price = (
        None
        if fixed
        else catalogue.known_plan(row.plan).renewal(row.subsidiary, Period(row.period_months))
    )
    currency = price.currency if price else subsidiary.currency
    whose = (row.customer_id, row.subsidiary, currency, row.payment_method_id)
    if row.asked_at is not None:
        return bool(row.next_subject == derived_id("asked", *whose, row.asked_at.isoformat()))
    day = local_date(row.next_step_at, subsidiary.timezone)
    return bool(row.next_subject == derived_id("renewal", *whose, day))


def _service(row: Any, catalogue: Catalogue) -> Service:
    """A service as the rule sees it; what an operator has suspended, as if it was not."""
    plan, subsidiary = catalogue.known_plan(row.plan), catalogue.subsidiary(row.subsidiary)
    timezone, period = subsidiary.timezone, Period(row.period_months)
    starts_on = catalogue.rollouts.get((row.brand, row.subsidiary))
    fixed = Money(row.net, row.currency) if row.currency == subsidiary.currency else None
    price = fixed or plan.renewal(row.subsidiary, period)
    state, desired = ServiceState(row.state), ResourceState(row.desired)
    if row.held_at is not None and desired is not ResourceState.ABSENT:
        is_paid = row.suspended_at is None
        state = ServiceState.ACTIVE if is_paid else ServiceState.SUSPENDED
        desired = ResourceState.ACTIVE if is_paid else ResourceState.SUSPENDED
    return Service(
        state=state,
        desired=desired,
        mode=RenewalMode(row.mode),
        subsidiary=row.subsidiary,
        timezone=timezone,
        period=period,
        expires_at=local_midnight(period.end(row.anchor, row.paid_periods), timezone),
        began_at=local_midnight(period.end(row.anchor, row.paid_periods - 1), timezone),
        starts_at=local_midnight(starts_on, timezone) if starts_on else None,
        missing_contract=sellable.missing_contract(plan, row.agreed_version, catalogue),
        mode_changed_at=row.mode_changed_at,
        suspended_at=row.suspended_at,
        taken_over_at=row.taken_over_at,
        is_free=price is not None and price.amount == 0,
        cycle=Cycle(
            notices=_moments(row.notices),
            refused={n: at for n, at in _moments(row.refused).items() if at is not None},
            asked_at=row.asked_at,
            requested=row.requested,
            declines=row.declines,
            declined_at=row.declined_at,
            last_declined_at=row.last_declined_at,
            stands_until=row.stands_until,
            announced_at=row.announced_at,
            raised_at=row.raised_at,
            dearer=row.dearer,
            dearer_at=row.dearer_at,
        ),
    )


def _moments(kinds: str | None) -> dict[Notice, datetime | None]:
    return {
        Notice.parse(kind): datetime.fromisoformat(at) if at else None
        for kind, at in json.loads(kinds or "{}").items()
    }


CHECKS = (
    Check(
        "steps.next",
        "what is next for a service is what the rule says, or is being done",
        _wrong_steps,
    ),
    sql(
        "steps.rollout",
        "what is not in the rollout was never reminded, charged or ended by itself",
        """
        SELECT 'service', s.id FROM services AS s
        WHERE s.id BETWEEN :low AND :high AND NOT EXISTS (SELECT FROM rollouts AS o
            WHERE (o.brand, o.subsidiary) = (s.brand, s.subsidiary))
          AND s.next_step_at IS NOT NULL AND s.next_step <> 'withdraw'
          AND NOT EXISTS (SELECT FROM recomputations AS w
            WHERE w.brand = s.brand AND w.subsidiary = s.subsidiary
              AND (w.after IS NULL OR w.after < s.id))""",
    ),
    # Decided anew in minutes, while a scheduler is running.
    sql(
        "steps.recomputed",
        "what a change of the catalogue decides anew is a part of it, and is done within a week",
        """
        SELECT 'recomputation', CAST(id AS text) FROM recomputations
        WHERE wanted_at < CAST(:db_now AS timestamptz) - interval '7 days'
           OR wanted_at > CAST(:db_now AS timestamptz) + interval '10 minutes'
           OR (plans IS NULL AND brand IS NULL AND subsidiary IS NULL)""",
        since=Since.ONCE,
    ),
)
