"""Notices are claimed before they are written: once per service, expiry and kind, and all that a
customer is to be told on a day in one e-mail."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, text

from producers import ledger
from producers.renewals import next_steps
from producers.renewals.next_steps import Renewable
from producers.steps import MAIL, REMIND
from schemas.clock import local_date, zone
from schemas.rules import lifecycle
from schemas.rules.lifecycle import REMINDER_HOUR
from schemas.tables import emails, notices, renewals, rows_from_json
from schemas.values import derived_id

_EMAIL = ("id", "customer_id", "day")
_OPEN_EMAILS = text(
    f"INSERT INTO emails ({', '.join(_EMAIL)})"
    f" SELECT * FROM {rows_from_json(emails, *_EMAIL)} ORDER BY id ON CONFLICT DO NOTHING"
)
# Held until the notices are in: what has begun to be sent takes no more.
_EMAILS = text("SELECT id, begun_at FROM emails WHERE id = ANY(:ids) ORDER BY id FOR SHARE")
_NOTICE = ("service_id", "expires_at", "kind", "email_id")
_CLAIM = text(
    f"INSERT INTO notices ({', '.join(_NOTICE)})"
    f" SELECT * FROM {rows_from_json(notices, *_NOTICE)} ON CONFLICT DO NOTHING"
)
_RENEWAL = ("service_id", "period_number", "expires_on", "net")
_FIX_PRICES = text(
    f"INSERT INTO renewals ({', '.join(_RENEWAL)})"
    f" SELECT * FROM {rows_from_json(renewals, *_RENEWAL)} ON CONFLICT DO NOTHING"
)


def fix_prices(tx: Connection, services: Sequence[Renewable]) -> None:
    """What a renewal will cost, as its customer is told first; a change waits for the next."""
    rows = [
        {
            "service_id": str(service.id),
            "period_number": service.paid_periods + 1,
            "expires_on": service.view.expires_on.isoformat(),
            "net": service.price,
        }
        for service in services
        if service.net is None and service.price is not None
    ]
    if rows:
        tx.execute(_FIX_PRICES, {"rows": json.dumps(rows)})


def claim_notices(tx: Connection, services: Sequence[Renewable], now: datetime) -> None:
    """Claim what is due to be said about services that are locked, and decide what is next.

    A customer who got an e-mail today already gets the next one tomorrow morning; nobody is
    written to before the morning.
    """
    email_of = {service.id: _email(service, now) for service in services}
    opened = {row["id"]: row for row in email_of.values()}
    tx.execute(_OPEN_EMAILS, {"rows": json.dumps(list(opened.values()))})
    rows = tx.execute(_EMAILS, {"ids": list(map(uuid.UUID, opened))})
    waiting = {str(row.id) for row in rows if row.begun_at is None}
    claimed, told, decided = [], [], []
    for service in services:
        email_id = email_of[service.id]["id"]
        due = lifecycle.due_notices(service.view, service.plan.policy, now)
        morning = _morning(service, now)
        if due and (email_id not in waiting or now < morning):
            quiet_until = morning if now < morning else _morning(service, now + timedelta(days=1))
            later = replace(service.view, quiet_until=quiet_until)
            columns = next_steps.columns(replace(service, view=later), now)
            decided.append({"id": str(service.id), **columns})
            continue
        claimed += [
            {
                "service_id": str(service.id),
                "expires_at": service.view.expires_at.isoformat(),
                "kind": str(notice),
                "email_id": email_id,
            }
            for notice in due
        ]
        known = {**service.view.cycle.notices, **dict.fromkeys(due)}
        told.append(service)
        decided.append(
            {"id": str(service.id), **next_steps.columns(service.with_cycle(notices=known), now)}
        )
    if claimed:
        fix_prices(tx, told)
        tx.execute(_CLAIM, {"rows": json.dumps(claimed)})
        wanted = {row["email_id"] for row in claimed}
        ledger.enqueue(tx, REMIND, [(uuid.UUID(email), MAIL) for email in wanted])
    next_steps.store(tx, decided)


def _email(service: Renewable, now: datetime) -> dict[str, Any]:
    day = local_date(now, service.subsidiary.timezone)
    return {
        "id": str(derived_id("email", service.customer_id, day)),
        "customer_id": service.customer_id,
        "day": day.isoformat(),
    }


def _morning(service: Renewable, moment: datetime) -> datetime:
    """When the customer's day begins as far as we are concerned."""
    timezone = service.subsidiary.timezone
    return datetime.combine(local_date(moment, timezone), time(REMINDER_HOUR), zone(timezone))
