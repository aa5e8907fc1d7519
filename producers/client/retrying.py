"""When something is tried again: only what is safe, a few times, with growing pauses."""

from collections.abc import Callable
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from producers.client.errors import Overloaded, Uncertain, Unreachable

LONGEST_PAUSE = 60.0
_BACKOFF = wait_random_exponential(multiplier=0.2, max=10.0)


def _pause(state: RetryCallState) -> float:
    """Seconds; as long as the other end says, if it says."""
    error = state.outcome.exception() if state.outcome is not None else None
    said = error.retry_after if isinstance(error, Overloaded | Uncertain) else None
    return min(max(_BACKOFF(state), said or 0.0), LONGEST_PAUSE)


def _may(is_safe: bool) -> Callable[[BaseException], bool]:
    def retry(error: BaseException) -> bool:
        return isinstance(error, Unreachable | Overloaded) or (
            is_safe and isinstance(error, Uncertain)
        )

    return retry


def _options(attempts: int, is_safe: bool) -> dict[str, Any]:
    return {
        "stop": stop_after_attempt(attempts),
        "wait": _pause,
        "retry": retry_if_exception(_may(is_safe)),
        "reraise": True,
    }


def retrying(attempts: int, is_safe: bool) -> Retrying:
    return Retrying(**_options(attempts, is_safe))


def async_retrying(attempts: int, is_safe: bool) -> AsyncRetrying:
    return AsyncRetrying(**_options(attempts, is_safe))
