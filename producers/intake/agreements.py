"""What customers agreed to, and how: contracts they accepted, methods that pay."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import Connection

from producers import history
from producers.history import Event
from producers.renewals import next_steps
from schemas.catalogue import Catalogue
from schemas.settings import DEFAULT_GATEWAY
from schemas.tables import agreements, payment_methods
from schemas.tables.bulk import Bulk, insert
from schemas.values import derived_id


@dataclass(frozen=True, slots=True, order=True)
class Agreement:
    customer_id: str
    contract: str
    version: int


_agree = insert(Agreement, agreements, "ON CONFLICT DO NOTHING")
_bound = Bulk(
    Agreement,
    """
    SELECT s.id FROM services AS s
    JOIN plans AS p ON p.code = s.plan
    JOIN json_to_recordset(CAST(:rows AS json)) AS r(
        customer_id text, contract text, version integer)
      ON r.customer_id = s.customer_id AND r.contract = p.contract
    WHERE coalesce(s.agreed_version, 0) < r.version
    """,
)
_raise = Bulk(
    Agreement,
    """
    UPDATE services AS s SET agreed_version = greatest(coalesce(s.agreed_version, 0), r.version)
    FROM plans AS p, json_to_recordset(CAST(:rows AS json)) AS r(
        customer_id text, contract text, version integer)
    WHERE s.id = ANY(:ids) AND p.code = s.plan
      AND r.customer_id = s.customer_id AND r.contract = p.contract
    """,
)


def agree(
    tx: Connection, accepted: Iterable[Agreement], catalogue: Catalogue, now: datetime
) -> list[uuid.UUID]:
    """Write down which contracts were accepted; services that waited for it go on.

    Returns:
        The services it makes a difference to.
    """
    rows = sorted(set(accepted))
    _agree(tx, rows)
    ids = list(_bound(tx, rows).scalars())
    if ids:
        next_steps.lock(tx, ids)
        _raise(tx, rows, ids=ids)
        next_steps.decide_again(tx, ids, catalogue, now)
        history.record(tx, (Event(service_id, "contract.accepted") for service_id in ids))
    return ids


class Method(NamedTuple):
    """A payment method: a token of a gateway's, good until a day if it says so."""

    customer_id: str
    token: str
    expires_on: date | None = None
    gateway: str = DEFAULT_GATEWAY

    @property
    def id(self) -> uuid.UUID:
        return method_id(self.customer_id, self.token, self.gateway)


def method_id(customer_id: str, token: str, gateway: str | None = None) -> uuid.UUID:
    """What a payment method is known by; without a gateway it belongs to the default one."""
    named = () if gateway in (None, DEFAULT_GATEWAY) else (gateway,)
    return derived_id("payment method", customer_id, token, *named)


@dataclass(frozen=True, slots=True)
class MethodRow:
    id: uuid.UUID
    customer_id: str
    token: str
    expires_on: date | None
    gateway: str = DEFAULT_GATEWAY


_save_methods = insert(
    MethodRow,
    payment_methods,
    "ON CONFLICT (id) DO UPDATE SET expires_on = excluded.expires_on"
    " WHERE excluded.expires_on IS NOT NULL AND t.expires_on IS DISTINCT FROM excluded.expires_on"
    " RETURNING id",
)


def save_methods(tx: Connection, methods: Iterable[Method]) -> set[uuid.UUID]:
    """Keep methods; one that is known may be good for longer by now.

    Returns:
        Those that are new, or whose last day is another one now.
    """
    rows = [
        MethodRow(method.id, method.customer_id, method.token, method.expires_on, method.gateway)
        for method in {method.id: method for method in methods}.values()
    ]
    return set(_save_methods(tx, rows).scalars()) if rows else set()
