"""The one table of the steps of work there are: where each runs, and what may be done about it.

Bootstrap, relay, topology, lanes, ``failed``, the embedded fleet and the private one read it. To
add a step, add a line here and its handler in ``workers/bootstrap.py``.
"""

from dataclasses import dataclass
from enum import StrEnum

from producers.ledger import DESTRUCTIVE_LANE, GATEWAY_LANE, GUARDED_LANES, RENEWAL_LANE, Place
from schemas.values import Universe

PRICE = "price"
CHARGE = "charge"
REFUND = "refund"
CONVERGE = "converge"
REMIND = "remind"
TELL = "tell"
SEND_LINK = "send_link"
RECONCILE = "reconcile"
REQUEST = "request"
WITHDRAW = "withdraw"
SUSPEND = "suspend"
TERMINATE = "terminate"
DELIVER = "deliver"
BY_HAND = "by_hand"

ORDERS = "orders"
BILLING = "billing"
REMINDERS = "reminders"
WEBHOOKS = "webhooks"
UNIVERSES = tuple(universe.value for universe in Universe)

# Queue -> the database role, and the broker user, of the workers that read it.
ROLE_OF_QUEUE = {
    ORDERS: "orders",
    BILLING: "billing",
    REMINDERS: "reminders",
    WEBHOOKS: "events",
    **dict.fromkeys(UNIVERSES, "provisioning"),
}
QUEUES = tuple(ROLE_OF_QUEUE)
# An argument of ``worker`` in the place of a queue: the worker publishes events as well.
EVENTS = "events"

MAIL_LANE = "mail"
_DRIVER_LANE = "driver:"


class Cancellation(StrEnum):
    """What a person gives up who cancels a failed task."""

    ORDER = "order"  # before it was priced
    PAYMENT = "payment"  # an order that is not paid yet, or one attempt to charge a renewal
    SERVICE = "service"  # before it was delivered; its money goes back
    EMAIL = "email"  # as one that cannot be delivered
    TELLING = "telling"  # likewise, the e-mail about an order
    EVENT = "event"  # its delivery to one endpoint; it can be replayed
    DECISION = "decision"  # what is next is decided anew; only if this is not


class ByHand(StrEnum):
    """What a person may do instead of a step, and then tell."""

    DONE = "done"  # at the infrastructure
    SETTLED = "settle"  # at the gateway


@dataclass(frozen=True, slots=True)
class StepKind:
    """One kind of work.

    Attributes:
        task: its name in the ledger.
        queues: where it runs.
        lane: what it can be paused with; None: the lane of the service's driver.
        outside: it calls the outside world, so a message carries as many tasks as may be called
            at once; a step inside the database works in larger sets.
        scheduled: the scheduler hands it over when it falls due.
        cancels: what cancelling it gives up; None: the customer is owed it.
        by_hand: what a person may do in its stead; None: nothing.
    """

    task: str
    queues: tuple[str, ...]
    lane: str | None
    outside: bool = False
    scheduled: bool = False
    cancels: Cancellation | None = None
    by_hand: ByHand | None = None

    @property
    def is_guarded(self) -> bool:
        """Whether it waits for a person after the fleet lost track (``control/guard.py``)."""
        return self.lane in GUARDED_LANES

    @property
    def place(self) -> Place:
        """Where its tasks run, if that is one place; see :func:`driver_place` otherwise."""
        if self.lane is None or len(self.queues) != 1:
            raise ValueError(f"{self.task} has no place of its own")
        return Place(self.queues[0], self.lane)


# In the order in which a scheduler hands over what fell due at one moment.
STEPS = {
    step.task: step
    for step in (
        StepKind(PRICE, (ORDERS,), ORDERS, cancels=Cancellation.ORDER),
        StepKind(
            REQUEST, (BILLING,), RENEWAL_LANE, scheduled=True, cancels=Cancellation.DECISION
        ),
        StepKind(
            WITHDRAW, (BILLING,), RENEWAL_LANE, scheduled=True, cancels=Cancellation.DECISION
        ),
        StepKind(
            CHARGE, (BILLING,), GATEWAY_LANE, outside=True, scheduled=True,
            cancels=Cancellation.PAYMENT, by_hand=ByHand.SETTLED,
        ),
        StepKind(
            SUSPEND, (BILLING,), DESTRUCTIVE_LANE, scheduled=True, cancels=Cancellation.DECISION
        ),
        StepKind(
            TERMINATE, (BILLING,), DESTRUCTIVE_LANE, scheduled=True, cancels=Cancellation.DECISION
        ),
        StepKind(REFUND, (BILLING,), GATEWAY_LANE, outside=True, by_hand=ByHand.SETTLED),
        StepKind(
            CONVERGE, UNIVERSES, None, outside=True,
            cancels=Cancellation.SERVICE, by_hand=ByHand.DONE,
        ),
        # Of a driver: what exists there beside what should.
        StepKind(RECONCILE, UNIVERSES, None, outside=True, cancels=Cancellation.DECISION),
        # Its notices are claimed by the scheduler itself.
        StepKind(REMIND, (REMINDERS,), MAIL_LANE, outside=True, cancels=Cancellation.EMAIL),
        # Of an order: what became of its services.
        StepKind(TELL, (REMINDERS,), MAIL_LANE, outside=True, cancels=Cancellation.TELLING),
        # Of an event to an endpoint, in a lane of that endpoint.
        StepKind(DELIVER, (WEBHOOKS,), None, outside=True, cancels=Cancellation.EVENT),
        # To a customer whose old one cannot be opened any more.
        StepKind(SEND_LINK, (REMINDERS,), MAIL_LANE, outside=True, cancels=Cancellation.DECISION),
        # Of a bulk operation: what a person did past the fleet is written down. Nothing is called,
        # so it waits for no lane of those who would be.
        StepKind(BY_HAND, (BILLING, *UNIVERSES), BY_HAND, cancels=Cancellation.DECISION),
    )
}  # fmt: skip

PRICING = STEPS[PRICE].place
GATEWAY = STEPS[CHARGE].place
RENEWAL = STEPS[REQUEST].place
DESTRUCTIVE = STEPS[SUSPEND].place
MAIL = STEPS[REMIND].place


def driver_place(universe: str, driver: str) -> Place:
    """Services are converged on their universe's queue, in their driver's lane."""
    return Place(universe, f"{_DRIVER_LANE}{driver}")


def by_hand_place(queue: str) -> Place:
    """What a person says is written down by the workers of a queue whose role may do so."""
    return Place(queue, BY_HAND)


def webhook_place(endpoint: str) -> Place:
    """Each endpoint has a lane of its own, so that one that fails delays no other.

    Args:
        endpoint: its name.
    """
    return Place(WEBHOOKS, f"webhook:{endpoint}")


def steps_of(queue: str) -> list[StepKind]:
    """The steps that run on a queue."""
    return [step for step in STEPS.values() if queue in step.queues]
