"""The metrics that the exporter takes from the database: names, labels, and what they say."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """A gauge.

    Attributes:
        says: its help text.
    """

    name: str
    says: str
    labels: tuple[str, ...] = ()


OLDEST_READY = Family(
    "autorenew_oldest_ready_seconds",
    "How long the oldest task that may be done now has been ready and not started.",
    ("queue",),
)
OLDEST_HELD = Family(
    "autorenew_oldest_held_seconds",
    "The same of tasks whose lane is paused or open.",
    ("queue",),
)
TASKS = Family("autorenew_tasks", "Tasks of the ledger.", ("queue", "state"))
FAILED = Family(
    "autorenew_failed_tasks", "Tasks that wait for a person.", ("step", "driver", "reason")
)
OLDEST_FAILED = Family(
    "autorenew_oldest_failed_seconds",
    "How long ago the oldest task that waits for a person failed first.",
    ("step",),
)
LANE_PAUSED = Family(
    "autorenew_lane_paused",
    "1 for each lane that is held: by an operator, the guard, or its breaker.",
    ("lane", "by"),
)
ORDERS = Family("autorenew_orders", "Orders by state.", ("state",))
OLDEST_UNDELIVERED = Family(
    "autorenew_oldest_undelivered_order_seconds",
    "How long ago the oldest order was accepted that has not ended.",
)
SERVICES = Family(
    "autorenew_services", "Services of customers.", ("universe", "brand", "state", "mode")
)
SERVICES_DUE = Family(
    "autorenew_services_due",
    "Services that expire within 30 days, by what will happen to them; and those past it, unpaid.",
    ("intent",),
)
UNKNOWN_CHARGES = Family(
    "autorenew_unknown_charges", "Charges and refunds of which nobody knows whether they were done."
)
OLDEST_UNKNOWN_CHARGE = Family(
    "autorenew_oldest_unknown_charge_seconds", "How long ago the oldest of them was begun."
)
UNKNOWN_OPERATIONS = Family(
    "autorenew_unknown_operations",
    "Operations at the infrastructure of which nobody knows whether they were done.",
    ("driver",),
)
OLDEST_UNKNOWN_OPERATION = Family(
    "autorenew_oldest_unknown_operation_seconds", "How long ago the oldest of them was begun."
)
UNDELIVERABLE = Family(
    "autorenew_undeliverable_emails",
    "E-mails that a mail server refuses for their recipient, and nobody has given up.",
)
LAST_BEAT = Family(
    "autorenew_last_beat_timestamp_seconds",
    "When a process of this kind was last seen at work; 0: not within a day.",
    ("process",),
)
ALIVE = Family(
    "autorenew_processes_alive",
    "Processes of the fleet by their heartbeat.",
    ("process", "queue", "version"),
)
UNTOLD = Family(
    "autorenew_untold_events", "Events for upstream that were left out: they cannot be composed."
)
DEAD_DOCUMENTS = Family("autorenew_intake_dead_documents", "Documents on the queue intake.dead.")
BULK = Family("autorenew_bulk_operations", "Bulk operations by state.", ("state",))
VIOLATIONS = Family(
    "autorenew_invariant_violations", "What breaks a check of the audit.", ("invariant",)
)
LAST_AUDIT = Family(
    "autorenew_last_full_audit_timestamp_seconds",
    "When the last audit ended that did every check; 0: none did.",
)
LAST_COMPARISON = Family(
    "autorenew_last_book_comparison_timestamp_seconds",
    "When the gateways' books were last compared with ours; 0: never.",
)
AUDIT_SECONDS = Family("autorenew_audit_seconds", "How long its checks took.")
MONEY = Family(
    "autorenew_money_today",
    "Money of the current day in UTC, in the major unit of its currency.",
    ("flow", "currency"),
)
COLLECTED = Family(
    "autorenew_exporter_last_collection_timestamp_seconds",
    "When a part of these metrics was last collected.",
    ("part",),
)
COLLECTION_SECONDS = Family(
    "autorenew_exporter_collection_seconds", "How long that took.", ("part",)
)
FAMILIES = tuple(value for value in vars().values() if isinstance(value, Family))
FAILED_COLLECTIONS = Family(
    "autorenew_exporter_failed_collections", "Collections that failed.", ("part",)
)
"""A counter."""
