"""The one table of the reasons for which a task is tried again or fails, and of what follows.

``failed`` groups and filters by them; ``workers.runtime.retries`` decides by their class. A gateway
or a driver of another package may add reasons: those are transient.
"""

from enum import StrEnum
from typing import Literal

CalledKind = Literal["gateway", "driver", "mail", "webhook"]


class FailureClass(StrEnum):
    """What is known of a step that did not succeed."""

    TRANSIENT = "transient"  # certainly not done; it may be another time
    UNKNOWN = "unknown"  # it may have been done: it is asked about before it is tried again
    REFUSED = "refused"  # a definite no to what was asked for: somebody has to change it
    PERMANENT = "permanent"  # a definite no to whatever is asked for, such as a missing setting
    DEFECT = "defect"  # an error that nobody foresaw, or the end of its process


_OF_CLASS = {
    FailureClass.TRANSIENT: (
        "driver_unavailable", "book_unavailable", "driver_stale", "gateway_unavailable",
        "cannot_connect", "connection_lost", "tls_failed", "login_required", "login_failed",
        "greylisted", "try_later", "too_slow", "declined", "interrupted",
        "webhook_refused", "webhook_unavailable", "webhook_forbidden",
    ),
    FailureClass.UNKNOWN: (
        "driver_unknown", "driver_in_progress", "in_progress", "gateway_unknown",
        "gateway_not_found", "lost_after_data",
    ),
    FailureClass.REFUSED: (
        "driver_refused", "refund_declined", "sender_refused", "recipient_refused",
        "message_refused", "address_unsupported", "address_invalid", "tax_not_supported",
        "vat_number_invalid", "data",
    ),
    FailureClass.PERMANENT: (
        "driver_permanent", "no_such_driver", "no_such_gateway", "plan_gone", "price_gone",
    ),
    FailureClass.DEFECT: ("defect", "crashed", "lease_lost"),
}  # fmt: skip

REASONS = {reason: kind for kind, reasons in _OF_CLASS.items() for reason in reasons}

# Failures of these classes are not retried: waiting does not mend them.
AT_ONCE = frozenset({FailureClass.REFUSED, FailureClass.PERMANENT})


def class_of(reason: str) -> FailureClass:
    return REASONS.get(reason, FailureClass.TRANSIENT)
