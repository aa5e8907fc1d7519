"""What customers agreed to, and how: contracts they accepted, methods that pay."""

import json
import uuid
from collections.abc import Iterable
from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from producers import history
from producers.history import Event
from producers.renewals import next_steps
from schemas.catalogue import Catalogue
from schemas.tables import agreements, payment_methods, rows_from_json
from schemas.values import derived_id


class Agreement(NamedTuple):
    customer_id: str
    contract: str
    version: int


_AGREE = text(
    "INSERT INTO agreements (customer_id, contract, version)"
    f" SELECT * FROM {rows_from_json(agreements, 'customer_id', 'contract', 'version')}"
    " ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING"
)
_BOUND = text("""
    SELECT s.id FROM services AS s
    JOIN plans AS p ON p.code = s.plan
    JOIN json_to_recordset(CAST(:rows AS json)) AS r(
        customer_id text, contract text, version integer)
      ON r.customer_id = s.customer_id AND r.contract = p.contract
    WHERE coalesce(s.agreed_version, 0) < r.version
""")
_RAISE = text("""
    UPDATE services AS s SET agreed_version = greatest(coalesce(s.agreed_version, 0), r.version)
    FROM plans AS p, json_to_recordset(CAST(:rows AS json)) AS r(
        customer_id text, contract text, version integer)
    WHERE s.id = ANY(:ids) AND p.code = s.plan
      AND r.customer_id = s.customer_id AND r.contract = p.contract
""")


def agree(
    tx: Connection, accepted: Iterable[Agreement], catalogue: Catalogue, now: datetime
) -> list[uuid.UUID]:
    """Write down which contracts were accepted; services that waited for it go on.

    Returns:
        The services it makes a difference to.
    """
    rows = json.dumps([agreement._asdict() for agreement in sorted(set(accepted))])
    tx.execute(_AGREE, {"rows": rows})
    ids = list(tx.execute(_BOUND, {"rows": rows}).scalars())
    if ids:
        next_steps.lock(tx, ids)
        tx.execute(_RAISE, {"ids": ids, "rows": rows})
        next_steps.decide_again(tx, ids, catalogue, now)
        history.record(tx, (Event(service_id, "contract.accepted") for service_id in ids))
    return ids


class Method(NamedTuple):
    """A payment method: a token of the gateway's, good until a day if it says so."""

    customer_id: str
    token: str
    expires_on: date | None = None

    @property
    def id(self) -> uuid.UUID:
        return derived_id("payment method", self.customer_id, self.token)


_METHOD = ("id", "customer_id", "token", "expires_on")
_SAVE_METHODS = text(
    f"INSERT INTO payment_methods AS m ({', '.join(_METHOD)})"
    f" SELECT * FROM {rows_from_json(payment_methods, *_METHOD)} ORDER BY id"
    " ON CONFLICT (id) DO UPDATE SET expires_on = excluded.expires_on"
    " WHERE excluded.expires_on IS NOT NULL AND m.expires_on IS DISTINCT FROM excluded.expires_on"
    " RETURNING id"
)


def save_methods(tx: Connection, methods: Iterable[Method]) -> set[uuid.UUID]:
    """Keep methods; one that is known may be good for longer by now.

    Returns:
        Those that are new, or whose last day is another one now.
    """
    rows = [
        {
            "id": str(method.id),
            "customer_id": method.customer_id,
            "token": method.token,
            "expires_on": method.expires_on and method.expires_on.isoformat(),
        }
        for method in {method.id: method for method in methods}.values()
    ]
    if not rows:
        return set()
    return set(tx.execute(_SAVE_METHODS, {"rows": json.dumps(rows)}).scalars())
