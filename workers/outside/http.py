"""One HTTP call under one deadline, with tenacity for short faults.

The deadline covers everything of a call: connecting, the request, header bytes and lines, interim
answers, chunk sizes, the body and its trailers. aiohttp needs about 190 µs of CPU a call; niquests
took four times and httpx forty times as much (300 calls at once, one core).
"""

import asyncio
import codecs
import io
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import aiohttp
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from monitoring import metrics, tracing
from schemas import logs
from schemas.errors import first_line
from schemas.json_bodies import unambiguous
from schemas.settings import Url
from workers.outside.connections import CleanConnector, cut_if_it_fails
from workers.outside.retry_after import retry_after
from workers.outside.texts import cleaned

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1_000_000
LARGE_BYTES = 500_000
# A try gets this share of what is left of the deadline, so that one that hangs leaves time for
# another.
SHARE_OF_A_TRY = 0.6
TRIES = 5
# Answers in which Retry-After says when to come back.
_MAY_ASK = (202, 429, 503)
# They say all there is to say by themselves, and are often from what stands before a far side.
_NEED_NO_BODY = (202, 401, 403, 425, 429)


class CallFailed(Exception):
    """What came instead of an answer.

    Attributes:
        code: what happened, by which failures are grouped, such as ``no_answer``.
        words: the same for a person.
        retry_after: seconds for which the far side asks not to be called; None: it does not.
    """

    def __init__(self, code: str, words: str = "", retry_after: float | None = None) -> None:
        super().__init__(words or code)
        self.code = code
        self.words = words or None
        self.retry_after = retry_after


class NotSent(CallFailed):
    """Nothing reached the far side: certainly not done."""


class InDoubt(CallFailed):
    """It may or may not have been done."""


class _Fault(CallFailed):
    """One try that may be tried again, unless the far side asks not to be called."""


def _is_header(token: SecretStr) -> SecretStr:
    if not token.get_secret_value().isprintable():
        raise ValueError("has a line break or another control character")
    return token


# A secret that is sent in a header.
Token = Annotated[SecretStr, AfterValidator(_is_header)]


class HttpSettings(BaseModel):
    """How a far side is reached over HTTP.

    Attributes:
        url: what the paths of calls are appended to.
        token: sent as a bearer token.
        seconds: deadline of a call, including its retries.
        connections: most connections to it from one process; calls wait for one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Url
    token: Token | None = None
    seconds: Annotated[float, Field(gt=0, le=300)] = 10.0
    connections: Annotated[int, Field(ge=1, le=10_000)] = 1000


# A text of an answer, as it is shown and kept.
Text = Annotated[str, AfterValidator(cleaned)]


@dataclass(frozen=True, slots=True)
class Answer:
    """
    Attributes:
        body: the answer's JSON value, as bytes: what it means is for a model to say. No field of
            it is given twice.
        retry_after: seconds for which the far side asks not to be called; None: it does not.
    """

    status: int
    body: bytes
    retry_after: float | None = None


class HttpCalls:
    """Calls to one far side, from any event loop; each loop has connections of its own.

    Every call carries an idempotency key, so that trying again is safe.

    Args:
        target: its name in the metrics.
        headers: what says who calls, instead of the settings' token as a bearer token.
        json_only: an answer whose body is not JSON is a fault. Otherwise it is the caller's to
            read, and may be empty.
        most_bytes: the longest body that is read.
    """

    def __init__(
        self,
        target: str,
        settings: HttpSettings,
        *,
        headers: Mapping[str, str] | None = None,
        json_only: bool = True,
        most_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self.target = target
        self._json_only = json_only
        self._most_bytes = most_bytes
        self._settings = settings
        self._base_url = settings.url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if headers is not None:
            self._headers |= headers
        elif settings.token:
            self._headers["Authorization"] = f"Bearer {settings.token.get_secret_value()}"
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def call(
        self,
        operation: str,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        seconds: float | None = None,
    ) -> Answer:
        """The far side's answer, whatever its status below 500.

        Args:
            seconds: the deadline of this call, if it is a part of what the settings' is for.

        Raises:
            NotSent: every try failed before any of the request was written to a connection.
            InDoubt: at least one try may have been acted on.
        """
        seconds = self._settings.seconds if seconds is None else seconds
        started = time.monotonic()
        deadline = started + seconds
        content = None if body is None else json.dumps(body).encode()
        sent = False

        async def noted() -> Answer:
            """One try; what became of it is kept beside the task, should it fail."""
            begun = time.monotonic()
            try:
                answer = await once()
            except CallFailed as error:
                _note(self.target, method, path, str(error), begun)
                raise
            _note(self.target, method, path, f"HTTP {answer.status}", begun)
            return answer

        async def once() -> Answer:
            nonlocal sent
            timeout = max((deadline - time.monotonic()) * SHARE_OF_A_TRY, 0.01)
            this = _Try()
            try:
                async with asyncio.timeout(timeout):
                    with cut_if_it_fails():
                        return await self._once(method, path, content, this)
            except aiohttp.ClientConnectorError as error:
                words = error.os_error.strerror or first_line(error.os_error)
                raise _Fault("cannot_connect", f"cannot connect: {words}") from None
            except TimeoutError:
                if not this.sent:
                    words = f"no connection in {timeout:.3g} s"
                    raise _Fault("cannot_connect", words) from None
                raise _Fault("no_answer", f"no answer in {timeout:.3g} s") from None
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise _Fault("connection_lost", first_line(error)) from None
            finally:
                sent = sent or this.sent

        try:
            retrying = AsyncRetrying(
                retry=retry_if_exception(_may_be_tried_again),
                stop=stop_after_delay(seconds * 0.9) | stop_after_attempt(TRIES),
                wait=wait_random_exponential(multiplier=0.02, max=seconds / 8),
                retry_error_cls=RetryError,
            )
            return await retrying(noted)
        except _Fault as asked:  # not to be called for a while
            raise InDoubt(asked.code, asked.words or "", asked.retry_after) from None
        except RetryError as error:
            fault = error.last_attempt.exception()
            assert isinstance(fault, _Fault)
            raise (InDoubt if sent else NotSent)(fault.code, fault.words or "") from None
        finally:
            metrics.call_seconds.labels(self.target, operation).observe(time.monotonic() - started)

    def count(self, operation: str, outcome: str) -> None:
        """Say how a call ended, in the words of its port."""
        metrics.calls.labels(self.target, operation, outcome).inc()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _once(self, method: str, path: str, content: bytes | None, this: "_Try") -> Answer:
        async with self._open().request(
            method,
            self._base_url + path,
            # aiohttp warns of a large body that is not a file.
            data=content if content is None or len(content) < LARGE_BYTES else io.BytesIO(content),
            headers=self._headers,
            allow_redirects=False,
            trace_request_ctx=this,
        ) as response:
            later = retry_after(response.headers) if response.status in _MAY_ASK else None
            if response.status >= 500:
                raise _Fault(f"HTTP {response.status}", retry_after=later)
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > self._most_bytes:
                    raise _Fault("answer_too_long", "an answer that does not end")
        read = bytes(body)
        if self._json_only:
            read = read.removeprefix(codecs.BOM_UTF8)  # RFC 8259, 8.1: may be ignored
            try:
                unambiguous(read)
            except ValueError as error:
                if response.status not in _NEED_NO_BODY:
                    words = f"an answer that is not JSON: {first_line(error)}"
                    raise _Fault("not_json", words) from None
                read = b"null"
        return Answer(response.status, read, later)

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop or self._session.closed:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=CleanConnector(limit=self._settings.connections),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(),  # the deadline is of the whole call
                cookie_jar=aiohttp.DummyCookieJar(),
                raise_for_status=False,
                trust_env=False,
                trace_configs=[_watching(), *tracing.of_aiohttp()],
            )
        return self._session


class _Try:
    """
    Attributes:
        sent: its request was written to a connection, or was about to be. aiohttp itself repeats a
            request whose connection was lost, so its last error alone does not say so (#10790).
    """

    sent = False


def _watching() -> aiohttp.TraceConfig:
    """Writes down in a request's :class:`_Try` that it is being sent."""

    async def sent(_: aiohttp.ClientSession, about: SimpleNamespace, __: object) -> None:
        about.trace_request_ctx.sent = True

    watching = aiohttp.TraceConfig()
    watching.on_request_headers_sent.append(sent)
    return watching


def _note(target: str, method: str, path: str, became: str, begun: float) -> None:
    took = time.monotonic() - begun
    logs.note(log, f"{target}: {method} {path.partition('?')[0]}: {became}, {took:.3f} s")


def _may_be_tried_again(error: BaseException) -> bool:
    return isinstance(error, _Fault) and error.retry_after is None
