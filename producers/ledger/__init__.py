"""The task ledger. Knows no business.

``tasks`` is the protocol of whoever asks for work or does it; ``dispatching`` is a relay's side.
"""

from producers.ledger.tasks import (
    DESTRUCTIVE_LANE,
    GATEWAY_LANE,
    GUARDED_LANES,
    MAX_STARTS,
    RENEWAL_LANE,
    Claim,
    ClaimedTask,
    Failure,
    LeaseLost,
    Outcome,
    Place,
    Retry,
    abandon,
    check_held,
    claim,
    enqueue,
    finish,
    release,
    renew,
)

__all__ = [
    "DESTRUCTIVE_LANE", "GATEWAY_LANE", "GUARDED_LANES", "MAX_STARTS", "RENEWAL_LANE", "Claim",
    "ClaimedTask", "Failure", "LeaseLost", "Outcome", "Place", "Retry", "abandon", "check_held",
    "claim", "enqueue", "finish", "release", "renew",
]  # fmt: skip
