"""An order that is charged on a later day than it was priced pays the tax of that day.

Renewals are quoted again by their next step; an order is not, and keeps its net amounts.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from schemas.catalogue import Catalogue
from schemas.clock import local_date
from schemas.rules import tax
from schemas.tables.bulk import Bulk
from schemas.values import ChargeState, Money, RequestId
from workers.billing.payment_requests import store


@dataclass(frozen=True, slots=True)
class TaxedRequest:
    """The tax of a payment request; its net amount stays."""

    id: RequestId
    tax_mention: str
    tax: Money
    currency: str
    stands_until: datetime | None


@dataclass(frozen=True, slots=True)
class TaxedLine:
    """Its tax in minor units of the request's currency."""

    request_id: RequestId
    service_id: uuid.UUID
    period_number: int
    tax_rate: Decimal
    tax: int


_tax_requests = Bulk(
    TaxedRequest,
    """
    UPDATE payment_requests AS p SET tax_mention = r.tax_mention, tax = r.tax,
        total = p.net + r.tax, stands_until = r.stands_until
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        id uuid, tax_mention text, tax bigint, currency text, stands_until timestamptz)
    WHERE p.id = r.id AND p.state = 'open' AND p.currency = r.currency
    """,
)
_tax_lines = Bulk(
    TaxedLine,
    """
    UPDATE request_lines AS l SET tax_rate = r.tax_rate, tax = r.tax
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        request_id uuid, service_id uuid, period_number integer, tax_rate numeric, tax bigint)
    WHERE l.request_id = r.request_id AND l.service_id = r.service_id
      AND l.period_number = r.period_number
    """,
)


def apply(
    tx: Connection, requests: Iterable[Any], catalogue: Catalogue, now: datetime
) -> list[RequestId]:
    """Tax open payment requests of orders anew whose tax may be another one by now: the rate has
    changed, or the subsidiary.

    One with a charge that is not decided stays as it is: that is asked about in the same words.

    Args:
        requests: rows of locked payment requests, each with the state of its last charge.

    Returns:
        Those that were taxed anew.

    Raises:
        DataError: the tax table has no rate.
    """
    outdated = [
        row
        for row in requests
        if (row.is_before_change or (row.stands_until is not None and row.stands_until <= now))
        and row.state not in (ChargeState.STARTED, ChargeState.UNKNOWN)
    ]
    if not outdated:
        return []
    lines = store.lines_on(tx, {row.id for row in outdated})
    taxed, parts = [], []
    for row in outdated:
        subsidiary = catalogue.subsidiary(row.subsidiary)
        treatment = tax.determine(
            subsidiary=subsidiary,
            customer_country=row.country,
            vat_number=row.vat_number,
            on=local_date(now, subsidiary.timezone),
        )
        shares = tax.spread([line.net for line in lines[row.id]], treatment.rate)
        taxed.append(
            TaxedRequest(
                id=row.id,
                tax_mention=treatment.mention,
                tax=Money(sum(shares), row.currency),
                currency=row.currency,
                stands_until=treatment.changes_at(subsidiary.timezone),
            )
        )
        parts += [
            TaxedLine(row.id, line.service_id, line.period_number, treatment.rate, share)
            for line, share in zip(lines[row.id], shares, strict=True)
        ]
    _tax_requests(tx, taxed)
    _tax_lines(tx, parts)
    return [row.id for row in taxed]
