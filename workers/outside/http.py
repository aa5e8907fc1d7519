"""One HTTP call under a deadline, with tenacity for short faults."""

import json
import time
from dataclasses import dataclass
from typing import Any

import urllib3
from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)
from urllib3.exceptions import HTTPError, NewConnectionError

from monitoring import metrics

MAX_ANSWER_BYTES = 1_000_000


class NotSent(Exception):
    """Nothing reached the far side: certainly not done."""


class InDoubt(Exception):
    """It may or may not have been done."""


class _Fault(Exception):
    """One try that may be tried again."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


class HttpCalls:
    """Calls to one far side; safe to share between threads.

    Args:
        target: its name in the metrics.
        seconds: deadline of a call, including its retries. Every call carries an idempotency
            key, so that trying again is safe.
    """

    def __init__(self, target: str, base_url: str, *, token: str | None, seconds: float) -> None:
        self.target = target
        self._base_url = base_url.rstrip("/")
        self._seconds = seconds
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = urllib3.PoolManager(
            num_pools=4,
            maxsize=256,
            retries=False,
        )

    def call(
        self, operation: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Answer:
        """The far side's answer, whatever its status below 500.

        Raises:
            NotSent: every try failed before anything was sent.
            InDoubt: at least one try may have been acted on.
        """
        started = time.monotonic()
        deadline = started + self._seconds
        sent = False

        def once() -> Answer:
            nonlocal sent
            # Not all of what is left, so that one try that hangs leaves time for another.
            timeout = max((deadline - time.monotonic()) * 0.6, 0.01)
            try:
                response = self._pool.request(
                    method,
                    self._base_url + path,
                    body=None if body is None else json.dumps(body),
                    headers=self._headers,
                    timeout=urllib3.Timeout(total=timeout),
                    preload_content=False,
                )
                sent = True
                raw = _content(response, time.monotonic() + timeout)
            except NewConnectionError as error:
                raise _Fault(str(error)) from None
            except HTTPError as error:
                sent = True
                raise _Fault(str(error)) from None
            if response.status >= 500:
                raise _Fault(f"HTTP {response.status}")
            try:
                content = json.loads(raw)
            except (ValueError, RecursionError):
                raise _Fault("an answer that is not JSON") from None
            return Answer(response.status, _printable(content))

        try:
            return Retrying(
                retry=retry_if_exception_type(_Fault),
                stop=stop_after_delay(self._seconds * 0.9) | stop_after_attempt(5),
                wait=wait_random_exponential(multiplier=0.02, max=self._seconds / 8),
                retry_error_cls=RetryError,
            )(once)
        except RetryError as error:
            fault = error.last_attempt.exception()
            raise (InDoubt if sent else NotSent)(str(fault)) from None
        finally:
            metrics.call_seconds.labels(self.target, operation).observe(time.monotonic() - started)

    def count(self, operation: str, outcome: str) -> None:
        """Say how a call ended, in the words of its port."""
        metrics.calls.labels(self.target, operation, outcome).inc()


def _content(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The body; a far side that trickles it, or never ends, is a fault."""
    parts, size = [], 0
    try:
        while part := response.read1(65_536):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                raise _Fault("an answer that does not end")
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return b"".join(parts)


def _printable(content: Any) -> dict[str, Any]:
    """The fields of an answer, texts without what neither a person nor PostgreSQL can take."""
    if not isinstance(content, dict):
        return {}
    return {
        name: "".join(filter(str.isprintable, value))[:500] if isinstance(value, str) else value
        for name, value in content.items()
    }
