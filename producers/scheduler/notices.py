"""Notices are claimed before they are written: once per service, expiry and kind, and all that a
customer is to be told on a day in one e-mail."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta

from sqlalchemy import Connection, text

from producers import ledger
from producers.renewals import next_steps, traces
from producers.renewals.next_steps import Renewable
from producers.steps import MAIL, REMIND
from schemas.clock import local_date, zone
from schemas.rules import lifecycle
from schemas.rules.days import REMINDER_HOUR
from schemas.tables import emails, notices, renewals
from schemas.tables.bulk import insert
from schemas.values import CustomerId, Money, ServiceId, derived_id


@dataclass(frozen=True, slots=True)
class EmailRow:
    id: uuid.UUID
    customer_id: CustomerId
    day: date


@dataclass(frozen=True, slots=True)
class NoticeRow:
    service_id: ServiceId
    expires_at: datetime
    kind: str
    email_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class PriceRow:
    service_id: ServiceId
    period_number: int
    expires_on: date
    net: Money
    currency: str


_open_emails = insert(EmailRow, emails, "ON CONFLICT DO NOTHING")
_claim = insert(NoticeRow, notices, "ON CONFLICT DO NOTHING")
_fix = insert(PriceRow, renewals, "ON CONFLICT DO NOTHING")
# Held until the notices are in: what has begun to be sent takes no more.
_EMAILS = text("SELECT id, begun_at FROM emails WHERE id = ANY(:ids) ORDER BY id FOR SHARE")


def fix_prices(tx: Connection, services: Sequence[Renewable]) -> None:
    """What a renewal will cost, as its customer is told first; a change waits for the next."""
    rows = [
        PriceRow(
            service_id=service.id,
            period_number=service.paid_periods + 1,
            expires_on=service.view.expires_on,
            net=service.price,
            currency=service.currency,
        )
        for service in services
        if service.fixed is None and service.price is not None
    ]
    if rows:
        _fix(tx, rows)


def claim_notices(
    tx: Connection,
    services: Sequence[Renewable],
    due_since: Mapping[uuid.UUID, datetime],
    now: datetime,
) -> None:
    """Claim what is due to be said about services that are locked, and decide what is next.

    A customer who got an e-mail today already gets the next one tomorrow morning. Nobody is written
    to before the morning, unless nobody looked in all the hours of the day to which it was put off:
    looks that always fall into the night put nothing off for ever.

    Args:
        due_since: when each of them was to be reminded of, as it was decided before.
    """
    email_of = {service.id: _email(service, now) for service in services}
    opened = {email.id: email for email in email_of.values()}
    _open_emails(tx, opened.values())
    rows = tx.execute(_EMAILS, {"ids": list(opened)})
    waiting = {row.id for row in rows if row.begun_at is None}
    claimed, told, decided = [], [], []
    for service in services:
        email_id = email_of[service.id].id
        due = lifecycle.due_notices(service.view, service.plan.policy, now)
        morning = _morning(service, now)
        is_night = now < morning and not _was_missed(service, due_since[service.id], now)
        if due and (email_id not in waiting or is_night):
            quiet_until = morning if is_night else _morning(service, now + timedelta(days=1))
            later = replace(service.view, quiet_until=quiet_until)
            decided.append(next_steps.step_of(replace(service, view=later), now))
            continue
        claimed += [
            NoticeRow(service.id, service.noticed_under, str(notice), email_id) for notice in due
        ]
        known = {**service.view.cycle.notices, **dict.fromkeys(due)}
        told.append(service)
        decided.append(next_steps.step_of(service.with_cycle(notices=known), now))
    if claimed:
        fix_prices(tx, told)
        traces.begin(tx, [service.id for service in told], "reminder")
        _claim(tx, claimed)
        ledger.enqueue(tx, REMIND, [(email_id, MAIL) for email_id in {c.email_id for c in claimed}])
    if decided:
        next_steps.store(tx, decided)


def _was_missed(service: Renewable, due_since: datetime, now: datetime) -> bool:
    """Whether it was put off to a morning, and the hours of that day have passed as well."""
    first = lifecycle.reminded_at(service.view, service.plan.policy)
    was_put_off = first is not None and first < due_since
    return was_put_off and due_since <= _morning(service, now - timedelta(days=1))


def _email(service: Renewable, now: datetime) -> EmailRow:
    day = local_date(now, service.subsidiary.timezone)
    return EmailRow(derived_id("email", service.customer_id, day), service.customer_id, day)


def _morning(service: Renewable, moment: datetime) -> datetime:
    """When the customer's day begins as far as we are concerned."""
    timezone = service.subsidiary.timezone
    return datetime.combine(local_date(moment, timezone), time(REMINDER_HOUR), zone(timezone))
