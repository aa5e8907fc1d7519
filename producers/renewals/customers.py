"""What a change of a customer means for the renewals that are asked for."""

import uuid
from collections.abc import Collection

from sqlalchemy import Connection, text

from producers import ledger
from producers.steps import RENEWAL, WITHDRAW

_ASKED_FOR = text("""
    SELECT s.id FROM services AS s
    JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
    WHERE s.customer_id = ANY(:ids) AND r.request_id IS NOT NULL
""")


def customers_changed(tx: Connection, ids: Collection[str]) -> None:
    """Have the open renewals of these customers decided again, soon.

    To be called in the transaction that changes a country or a VAT number. It takes no lock of a
    service: an open payment request is compared with its customer where it is withdrawn and,
    whatever was forgotten here, before it is charged.
    """
    services: list[uuid.UUID] = list(tx.execute(_ASKED_FOR, {"ids": list(ids)}).scalars())
    if services:
        ledger.enqueue(tx, WITHDRAW, [(service, RENEWAL) for service in services])
