"""What a key has done about customers and services: commands as of every door, in its scope."""

import uuid
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, text

from producers.api.access import Access
from producers.api.problems import Failed, not_found, of_answer
from producers.intake.documents import Verdict
from producers.views.scope import Scope

# Read where it is written: what may be seen here was not replicated yet, perhaps.
_CUSTOMER = text("SELECT realm, subsidiary FROM customers WHERE id = :id")
_SERVICES = text("""
    SELECT s.id, s.customer_id, s.brand, s.subsidiary, c.realm
    FROM services AS s JOIN customers AS c ON c.id = s.customer_id WHERE s.id = ANY(:ids)
""")


def send(
    tx: Connection, access: Access, command: str, customer: str, fields: Mapping[str, Any]
) -> dict[str, Any] | Failed:
    """Do a command for a customer that the key sees.

    Returns:
        Whether anything is different now; or why it was not done.
    """
    document = {"command": command, "customer": customer, **fields}
    answer = access.doors.intake(access.key).command(
        tx,
        access.key.upstream or f"key {access.key.name}",
        "api",
        to_json(document),
        realm=access.scope.realm,
        trace=access.trace,
    )
    if answer.verdict is not Verdict.ACCEPTED:
        return of_answer(answer.problems)
    return {"changed": not answer.repeated}


def check_customer(tx: Connection, access: Access, id: str) -> None:
    """
    Raises:
        Failed: the key sees no such customer.
    """
    row = tx.execute(_CUSTOMER, {"id": id}).first()
    if row is None or not _is_seen(access.scope, row):
        raise not_found()


def check_services(tx: Connection, access: Access, ids: list[uuid.UUID]) -> str:
    """The customer of services that the key sees.

    Raises:
        Failed: it does not see one of them.
    """
    rows = tx.execute(_SERVICES, {"ids": ids}).all()
    brands = access.scope.brands
    seen = [
        row
        for row in rows
        if _is_seen(access.scope, row) and (brands is None or row.brand in brands)
    ]
    if {row.id for row in seen} != set(ids):
        raise not_found()
    return str(seen[0].customer_id)


def _is_seen(scope: Scope, row: Any) -> bool:
    theirs = scope.realm is None or row.realm == scope.realm
    return theirs and (scope.subsidiaries is None or row.subsidiary in scope.subsidiaries)
