"""A customer: who they are, how they pay (never the token), what they agreed to, what is theirs."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from producers.intake.customer import subject_of
from producers.views import services, timelines
from producers.views.outlooks import NextView, QuoteView, decision_of, next_of, try_quote
from producers.views.scope import EVERYTHING, Page, Scope, after, cursor_of
from producers.views.timelines import Happening
from schemas.catalogue import Catalogue
from schemas.rules.outlook import Decision


@dataclass(frozen=True, slots=True)
class PaymentMethodView:
    """How a customer pays; the token is the gateway's and billing's alone.

    Attributes:
        expires_on: the last day on which it can be charged, if that is known.
        is_saved: it pays orders that name none.
    """

    id: uuid.UUID
    gateway: str
    expires_on: date | None
    known_since: datetime
    is_saved: bool


@dataclass(frozen=True, slots=True)
class AgreementView:
    """A version of a contract that the customer accepted."""

    contract: str
    version: int
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class EmailView:
    """An e-mail to a customer.

    Attributes:
        id: its Message-ID follows from it.
        kinds: the notices in it, such as ``before-30``; ``order``: it tells of an order.
        sent_at: None: it was not sent yet, or was given up.
        refused_at: when the mail server first refused it for its recipient.
    """

    id: uuid.UUID
    day: date
    kinds: Sequence[str]
    services: Sequence[uuid.UUID]
    sent_at: datetime | None
    refused_at: datetime | None
    given_up_at: datetime | None


@dataclass(frozen=True, slots=True)
class CustomerView:
    """What is known of a customer.

    Attributes:
        realm: which upstreams may order for them; None: any, as before there were realms.
    """

    id: str
    realm: str | None
    subsidiary: str
    country: str
    language: str
    email: str
    vat_number: str | None
    name: str | None
    company: str | None
    address: dict[str, Any] | None
    updated_at: datetime
    payment_methods: Sequence[PaymentMethodView] = ()
    agreements: Sequence[AgreementView] = ()
    timeline: Sequence[Happening] = ()


@dataclass(frozen=True, slots=True)
class Upcoming:
    """What becomes of a service at its expiry, and what is charged for it.

    Attributes:
        charged_at: when it is charged by itself; None: it is not.
        renewal: what that costs, with tax, as of that day.
        renewal_problem: the code of why that cannot be said.
    """

    service: uuid.UUID
    plan: str
    plan_name: str
    name: str
    expires_on: date
    decision: Decision
    next: NextView
    charged_at: datetime | None
    renewal: QuoteView | None
    renewal_problem: str | None


# For the command line too, which may be the role api: no column that this role may not read.
_GET = text("""
    SELECT id, realm, subsidiary, country, language, email, vat_number, name, company, address,
        updated_at
    FROM customers WHERE id = :id
      AND (CAST(:realm AS text) IS NULL OR realm = :realm)
      AND (CAST(:subsidiaries AS text[]) IS NULL
           OR subsidiary = ANY(CAST(:subsidiaries AS text[])))
""")
_METHODS = text("""
    SELECT m.id, m.gateway, m.expires_on, m.created_at, m.id = c.payment_method_id AS is_saved
    FROM payment_methods AS m JOIN customers AS c ON c.id = m.customer_id
    WHERE m.customer_id = :id ORDER BY m.created_at DESC, m.id LIMIT 50
""")
_AGREEMENTS = text("""
    SELECT contract, version, accepted_at FROM agreements
    WHERE customer_id = :id ORDER BY contract, version LIMIT 500
""")
_EMAILS = text("""
    SELECT e.id, e.day, n.kinds, n.services, e.sent_at, e.refused_at, e.given_up_at
    FROM emails AS e
    CROSS JOIN LATERAL (
        SELECT array_agg(DISTINCT n.kind) AS kinds, array_agg(DISTINCT n.service_id) AS services,
               bool_or(CAST(:brands AS text[]) IS NULL
                   OR s.brand = ANY(CAST(:brands AS text[]))) AS fits
        FROM notices AS n JOIN services AS s ON s.id = n.service_id WHERE n.email_id = e.id
    ) AS n
    WHERE e.customer_id = :id AND n.fits
    ORDER BY e.day DESC, e.id LIMIT :limit
""")
_ORDER_EMAILS = text("""
    SELECT e.id, CAST(e.begun_at AS date) AS day, ARRAY['order'] AS kinds,
           e.delivered || e.given_up AS services, e.sent_at, e.refused_at, e.given_up_at
    FROM orders AS o JOIN order_emails AS e ON e.order_id = o.id
    WHERE o.customer_id = :id
      AND (CAST(:upstreams AS text[]) IS NULL OR o.upstream = ANY(CAST(:upstreams AS text[])))
      AND (CAST(:brands AS text[]) IS NULL OR NOT EXISTS (
          SELECT FROM order_lines AS l JOIN plans AS p ON p.code = l.plan
          WHERE l.order_id = o.id AND p.brand <> ALL(CAST(:brands AS text[]))))
    ORDER BY e.begun_at DESC, e.id LIMIT :limit
""")
_UPCOMING = text("""
    SELECT s.id FROM services AS s
    WHERE s.customer_id = :customer AND (CAST(:after AS uuid) IS NULL OR s.id > :after)
      AND s.state IN ('active', 'suspended') AND s.anchor IS NOT NULL AND s.desired <> 'absent'
    ORDER BY s.id LIMIT :limit
""")


def get(
    tx: Connection, id: str, *, scope: Scope = EVERYTHING, timeline: bool = True
) -> CustomerView | None:
    """A customer; None: there is none that may be seen."""
    row = tx.execute(_GET, {"id": id, **_of(scope)}).first()
    if row is None:
        return None
    happened = (
        timelines.of_subjects(tx, {subject_of(id): "customer"}, scope=scope) if timeline else ()
    )
    return CustomerView(
        **row._mapping,
        payment_methods=[PaymentMethodView(*m) for m in tx.execute(_METHODS, {"id": id})],
        agreements=[AgreementView(*a) for a in tx.execute(_AGREEMENTS, {"id": id})],
        timeline=happened,
    )


def facts(tx: Connection, id: str) -> dict[str, Any] | None:
    """What is known of a customer by itself, for the command line; None: there is none."""
    row = tx.execute(_GET, {"id": id, **_of(EVERYTHING)}).first()
    return None if row is None else dict(row._mapping)


def is_seen(tx: Connection, id: str, scope: Scope) -> bool:
    """Whether there is a customer of that id that may be seen."""
    return tx.execute(_GET, {"id": id, **_of(scope)}).first() is not None


def emails(
    tx: Connection, id: str, *, scope: Scope = EVERYTHING, limit: int = 100
) -> list[EmailView]:
    """The newest e-mails to a customer; the customer is known to be seen."""
    brands, upstreams = scope.parameters["brands"], scope.parameters["upstreams"]
    parameters = {"id": id, "brands": brands, "limit": limit}
    rows = [
        *tx.execute(_EMAILS, parameters),
        *tx.execute(_ORDER_EMAILS, {**parameters, "upstreams": upstreams}),
    ]
    listed = [EmailView(*row) for row in rows]
    return sorted(listed, key=lambda email: (email.day, email.id), reverse=True)[:limit]


def upcoming(
    tx: Connection,
    id: str,
    catalogue: Catalogue,
    now: datetime,
    *,
    scope: Scope = EVERYTHING,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Upcoming]:
    """What becomes of a customer's services at their expiry, and what will be charged for them.

    In the order of their ids by parts; within one, by the day on which they are charged.

    Raises:
        CursorInvalid: the cursor is none.
    """
    parameters = {"customer": id, "after": after(cursor), "limit": limit + 1}
    ids: list[uuid.UUID] = list(tx.execute(_UPCOMING, parameters).scalars())
    found = []
    for one in services.known(tx, ids[:limit], catalogue, scope=scope):
        held = one.renewable
        if held is None:
            continue
        renewal, problem = try_quote(held, one.payer, now)
        found.append(
            Upcoming(
                service=held.id,
                plan=held.plan.code,
                plan_name=held.plan.name,
                name=held.detail,
                expires_on=held.view.expires_on,
                decision=decision_of(held, one.method, now),
                next=next_of(held, now),
                charged_at=renewal.charged_at if renewal is not None else None,
                renewal=renewal,
                renewal_problem=problem or None,
            )
        )
    found.sort(key=lambda u: (u.charged_at is None, u.charged_at or now, u.expires_on, u.service))
    return Page(found, cursor_of(ids[limit - 1]) if len(ids) > limit else None)


def _of(scope: Scope) -> dict[str, Any]:
    return {n: v for n, v in scope.parameters.items() if n in ("realm", "subsidiaries")}
