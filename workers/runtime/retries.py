"""How often what failed is tried again by itself, and after how long: policies, given as data.

There is one for each kind of far side: payment gateways, infrastructures, mail servers. Charging an
order or a renewal again after a *decline* is no retry of a call: orders have
``order_charge_delays``, renewals the ``charges`` of their plan's life-cycle policy.
"""

from dataclasses import dataclass, replace
from typing import Literal

from producers.ledger import ClaimedTask, Failure, Retry
from schemas.settings import RetrySettings, Settings

FarSideKind = Literal["gateway", "driver", "mail"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, until a person decides.

    Full jitter draws each delay between 0 and its ceiling, so that what failed together does not
    come again together (M. Brooker, "Exponential Backoff And Jitter", AWS, 2015).

    Attributes:
        base: seconds, the ceiling of the first delay; it doubles with each attempt.
        cap: seconds, the highest ceiling.
        attempts: failures after which the task waits for a person.
    """

    base: float
    cap: float
    attempts: int

    def decide(
        self, task: ClaimedTask, reason: str, error: str, code: str | None = None
    ) -> Retry | Failure:
        """What becomes of a task that failed once more; the runtime draws the jitter.

        Args:
            reason: a short stable code of ours, by which failed tasks are grouped.
            error: what a person reads.
            code: the far side's own, beside ours.
        """
        if self.is_exhausted(task):
            return Failure(task.subject, reason, error, code)
        ceiling = min(self.cap, self.base * 2 ** min(task.attempts, 30))
        return Retry(task.subject, reason, error, delay=ceiling, jitter=True, code=code)

    def is_exhausted(self, task: ClaimedTask) -> bool:
        """Whether one more failure is the last one."""
        return task.attempts + 1 >= self.attempts


def jittered(retry: Retry, random: float) -> Retry:
    """A retry with the delay that was drawn for it; ``random`` is uniform in [0, 1)."""
    return replace(retry, delay=random * retry.delay, jitter=False) if retry.jitter else retry


def policy_for(kind: FarSideKind, settings: Settings) -> RetryPolicy:
    """The policy of a kind of far side: what is set for it, or else what is set for all."""
    own = settings.retries.get(kind, RetrySettings())
    return RetryPolicy(
        base=own.base_seconds or settings.retry_base_seconds,
        cap=own.cap_seconds or settings.retry_cap_seconds,
        attempts=own.attempts or settings.retry_attempts,
    )
