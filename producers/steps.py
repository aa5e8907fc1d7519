"""The steps of work there are, and where each of them runs.

A step inside the database works in sets and takes large messages. A step with the outside
world takes as many at once as it may call at once.
"""

from producers.ledger import Place
from schemas.values import Universe

PRICE = "price"
CHARGE = "charge"
REFUND = "refund"
CONVERGE = "converge"

OUTSIDE = frozenset({CHARGE, REFUND, CONVERGE})

ORDERS = "orders"
BILLING = "billing"
QUEUES = (ORDERS, BILLING, *(universe.value for universe in Universe))

PRICING = Place(ORDERS, ORDERS)
GATEWAY = Place(BILLING, "gateway")


def driver_place(universe: str, driver: str) -> Place:
    """Services are converged on their universe's queue, in their driver's lane."""
    return Place(universe, f"driver:{driver}")
