"""The task ledger. Knows no business.

``tasks`` asks for work, ``claims`` is a worker's side of the protocol, ``dispatching`` a relay's.
"""

from producers.ledger.claims import (
    abandon,
    check_held,
    claim,
    finish,
    finish_together,
    release,
    renew,
)
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
    enqueue,
    retry,
    run_now,
    send_again,
)

__all__ = [
    "DESTRUCTIVE_LANE", "GATEWAY_LANE", "GUARDED_LANES", "MAX_STARTS", "RENEWAL_LANE", "Claim",
    "ClaimedTask", "Failure", "LeaseLost", "Outcome", "Place", "Retry", "abandon", "check_held",
    "claim", "enqueue", "finish", "finish_together", "release", "renew",
    "retry", "run_now", "send_again",
]  # fmt: skip
