"""Links of a fleet that somebody tries out, as its e-mails would have them."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import text

from producers.intake.links import Links

if TYPE_CHECKING:
    from autorenew.local.embedded import Embedded

MOST = 3
_LOOK_EVERY_SECONDS = 1.0
_CUSTOMERS = text("""
    SELECT customer_id FROM services WHERE anchor IS NOT NULL AND state = 'active'
    GROUP BY customer_id ORDER BY max(expires_at) DESC, customer_id LIMIT :most
""")


def say_links(fleet: "Embedded", stopping: threading.Event, say: Callable[[str], None]) -> None:
    """Say the link to all services of the first few customers who have one; returns at once."""
    threading.Thread(
        target=_watch, args=(fleet, stopping, say), name="examples", daemon=True
    ).start()


def _watch(fleet: "Embedded", stopping: threading.Event, say: Callable[[str], None]) -> None:
    links, told = Links.of(fleet.settings), set[str]()
    while len(told) < MOST and not stopping.is_set():
        with fleet.owner.connect() as tx:
            customers = list(tx.execute(_CUSTOMERS, {"most": MOST}).scalars())
        for customer in customers:
            if customer not in told and len(told) < MOST:
                told.add(customer)
                say(f"  {customer}: {links.account_url(customer, fleet.clock.now())}")
        stopping.wait(_LOOK_EVERY_SECONDS)
