"""That a customer is to be told what became of an order: whoever completes a part asks here."""

import uuid
from collections.abc import Collection

from sqlalchemy import Connection

from producers import ledger
from producers.steps import MAIL, TELL

# Said in the event of a service's delivery, or of its end before: an e-mail tells of it.
BY_EMAIL = {"email": True}


def tell(
    tx: Connection, orders: Collection[uuid.UUID], ended: Collection[uuid.UUID], seconds: float
) -> None:
    """Have customers told of services that were delivered, or given up, in this transaction.

    Of an order that has ended they are told at once, of another one after a while: the first of its
    services begins it, and what is delivered until then is in the same e-mail.

    Args:
        orders: of which a part was completed.
        ended: those of them that are complete.
        seconds: how long the others wait.
    """
    ended = set(ended)
    if complete := ended.intersection(orders):
        ledger.enqueue(tx, TELL, [(order, MAIL) for order in complete])
    if waiting := set(orders) - ended:
        ledger.enqueue(tx, TELL, [(order, MAIL) for order in waiting], delay=seconds)
