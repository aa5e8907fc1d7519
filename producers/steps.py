"""The steps of work there are, and where each of them runs.

A step inside the database works in sets and takes large messages. A step with the outside
world takes as many at once as it may call at once.
"""

from producers.ledger import DESTRUCTIVE_LANE, GATEWAY_LANE, RENEWAL_LANE, Place
from schemas.values import Universe

PRICE = "price"
CHARGE = "charge"
REFUND = "refund"
CONVERGE = "converge"
REMIND = "remind"
REQUEST = "request"
WITHDRAW = "withdraw"
SUSPEND = "suspend"
TERMINATE = "terminate"

OUTSIDE = frozenset({CHARGE, REFUND, CONVERGE, REMIND})

ORDERS = "orders"
BILLING = "billing"
REMINDERS = "reminders"
QUEUES = (ORDERS, BILLING, REMINDERS, *(universe.value for universe in Universe))

PRICING = Place(ORDERS, ORDERS)
GATEWAY = Place(BILLING, GATEWAY_LANE)
RENEWAL = Place(BILLING, RENEWAL_LANE)
DESTRUCTIVE = Place(BILLING, DESTRUCTIVE_LANE)
MAIL = Place(REMINDERS, "mail")

# Where what is next for a service is done; notices are claimed by the scheduler itself.
STEP_PLACES = {
    REQUEST: RENEWAL,
    WITHDRAW: RENEWAL,
    CHARGE: GATEWAY,
    SUSPEND: DESTRUCTIVE,
    TERMINATE: DESTRUCTIVE,
}


def driver_place(universe: str, driver: str) -> Place:
    """Services are converged on their universe's queue, in their driver's lane."""
    return Place(universe, f"driver:{driver}")
