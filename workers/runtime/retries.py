"""How often what failed is tried again by itself, and after how long: policies, given as data.

There is one for all reasons; settings change it for a kind of far side (payment gateways,
infrastructures, mail servers) or for one reason. What is refused fails at once
(``schemas.reasons``). Charging an order or a renewal again after a *decline* is no retry of a
call: orders have ``order_charge_delays``, renewals the ``charges`` of their life-cycle policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from producers.ledger import ClaimedTask, Failure, Retry
from schemas.reasons import AT_ONCE, REASONS, CalledKind, class_of
from schemas.settings import RetrySettings, Settings


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, until a person decides.

    Full jitter draws each delay between 0 and its ceiling, so that what failed together does not
    come again together (M. Brooker, "Exponential Backoff And Jitter", AWS, 2015).

    Attributes:
        base: seconds, the ceiling of the first delay; it doubles with each attempt.
        cap: seconds, the highest ceiling.
        attempts: failures after which the task waits for a person.
        of_reasons: other policies, for some reasons.
    """

    base: float
    cap: float
    attempts: int
    of_reasons: Mapping[str, "RetryPolicy"] = field(default_factory=dict)

    def decide(
        self, task: ClaimedTask, reason: str, error: str, code: str | None = None
    ) -> Retry | Failure:
        """What becomes of a task that failed once more; the runtime draws the jitter.

        Args:
            reason: a short stable code of ours, by which failed tasks are grouped.
            error: what a person reads.
            code: the far side's own, beside ours.
        """
        policy = self.of_reasons.get(reason, self)
        if class_of(reason) in AT_ONCE or task.attempts + 1 >= policy.attempts:
            return Failure(task.subject, reason, error, code)
        ceiling = min(policy.cap, policy.base * 2 ** min(task.attempts, 30))
        return Retry(task.subject, reason, error, delay=ceiling, jitter=True, code=code)


def jittered(retry: Retry, random: float) -> Retry:
    """A retry with the delay that was drawn for it; ``random`` is uniform in [0, 1)."""
    return replace(retry, delay=random * retry.delay, jitter=False) if retry.jitter else retry


def policy_for(kind: CalledKind, settings: Settings) -> RetryPolicy:
    """The policy of a kind of far side: what is set for a reason, for the kind, or for all."""
    for_all = RetryPolicy(
        settings.retry_base_seconds, settings.retry_cap_seconds, settings.retry_attempts
    )
    own = _changed(for_all, settings.retries.get(kind, RetrySettings()))
    of_reasons = {
        name: _changed(own, change) for name, change in settings.retries.items() if name in REASONS
    }
    return replace(own, of_reasons=of_reasons)


def _changed(policy: RetryPolicy, change: RetrySettings) -> RetryPolicy:
    return RetryPolicy(
        base=change.base_seconds or policy.base,
        cap=change.cap_seconds or policy.cap,
        attempts=change.attempts or policy.attempts,
    )
