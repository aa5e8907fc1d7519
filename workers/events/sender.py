"""One request to an endpoint, under one deadline. No redirect is followed."""

import asyncio
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import aiohttp

from monitoring import metrics
from schemas.errors import first_line
from schemas.events import CONTENT_TYPE
from workers.events.addresses import (
    Addresses,
    CheckedResolver,
    ForbiddenAddress,
    Network,
    checked_socket,
)
from workers.events.signing import signed
from workers.outside.connections import CleanConnector, cut_if_it_fails
from workers.outside.retry_after import retry_after
from workers.outside.texts import cleaned

TARGET = "webhook"
# Of an answer; what it says is nobody's, only its status counts.
MOST_ANSWER_BYTES = 64 * 1024
_MAY_ASK = (429, 503)
_GONE = 410


class WebhookState(StrEnum):
    DELIVERED = "delivered"
    GONE = "gone"  # 410: nothing is to be sent there any more
    REFUSED = "refused"  # any other answer
    UNAVAILABLE = "unavailable"  # no answer
    FORBIDDEN = "forbidden"  # its address may not be connected to


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """
    Attributes:
        code: short and stable, such as ``HTTP 500`` or ``no_answer``.
        words: the same for a person.
        retry_after: seconds for which the endpoint asks not to be called.
    """

    state: WebhookState
    code: str
    words: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent, and where.

    Attributes:
        event: the id of the CloudEvent.
        keys: secrets that sign it.
    """

    endpoint: str
    url: str
    event: str
    body: bytes
    keys: Sequence[str]


class Sender:
    """Sends to any endpoint, from any event loop; each loop has connections of its own.

    Args:
        seconds: the deadline of a request: its name, connection, TLS, request and answer.
        allowed: inner networks that may be reached, and without TLS, too.
    """

    def __init__(self, *, seconds: float, allowed: Iterable[Network] = ()) -> None:
        self._seconds = seconds
        allowed = tuple(allowed)
        self._addresses = {
            "https": Addresses(allowed),
            "http": Addresses(allowed, inner_only=True),
        }
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, letter: Letter) -> WebhookAnswer:
        """Faults of the far side are answers, never exceptions."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                with cut_if_it_fails():
                    answer = await self._send(letter)
        except TimeoutError:
            words = f"no answer in {self._seconds:g} s"
            answer = WebhookAnswer(WebhookState.UNAVAILABLE, "no_answer", words)
        except ForbiddenAddress as error:
            answer = _forbidden(error)
        except aiohttp.ClientConnectorCertificateError as error:
            words = f"its certificate is not trusted: {first_line(error.certificate_error)}"
            answer = WebhookAnswer(WebhookState.UNAVAILABLE, "certificate", cleaned(words))
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenAddress):
                answer = _forbidden(error.os_error)
            else:
                words = error.os_error.strerror or first_line(error.os_error)
                answer = WebhookAnswer(
                    WebhookState.UNAVAILABLE, "cannot_connect", cleaned(f"cannot connect: {words}")
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer = WebhookAnswer(
                WebhookState.UNAVAILABLE, "connection_lost", cleaned(first_line(error))
            )
        metrics.call_seconds.labels(TARGET, "deliver").observe(time.monotonic() - started)
        metrics.webhook_answers.labels(answer.state).inc()
        return answer

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def _send(self, letter: Letter) -> WebhookAnswer:
        scheme, host = urlsplit(letter.url).scheme, urlsplit(letter.url).hostname or ""
        addresses = self._addresses[scheme]
        if _is_literal(host) and not addresses.may_reach(host):  # no name to resolve
            raise ForbiddenAddress(host)
        headers = {
            "Content-Type": CONTENT_TYPE,
            "User-Agent": "Autorenew-Webhooks/1",
            "Accept-Encoding": "identity",
            **signed(letter.event, int(time.time()), letter.body, letter.keys),
        }
        async with self._open(scheme).post(
            letter.url, data=letter.body, headers=headers, allow_redirects=False
        ) as response:
            later = retry_after(response.headers) if response.status in _MAY_ASK else None
            code = f"HTTP {response.status}"
            length = 0
            async for part in response.content.iter_any():
                length += len(part)
                if length > MOST_ANSWER_BYTES:
                    response.close()  # its status is known
                    break
            if 200 <= response.status < 300:
                return WebhookAnswer(WebhookState.DELIVERED, code)
            if response.status == _GONE:
                return WebhookAnswer(WebhookState.GONE, code)
            is_moved = 300 <= response.status < 400
            words = "a redirect, which is not followed" if is_moved else "not a success"
            return WebhookAnswer(WebhookState.REFUSED, code, f"{code}: {words}", later)

    def _open(self, scheme: str) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._sessions = loop, {}
        if scheme not in self._sessions:
            addresses = self._addresses[scheme]
            self._sessions[scheme] = aiohttp.ClientSession(
                connector=CleanConnector(
                    limit=0,
                    resolver=CheckedResolver(addresses),
                    socket_factory=checked_socket(addresses),
                    ssl=ssl.create_default_context(),
                    ttl_dns_cache=10,
                ),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(),  # the deadline is of the whole request
                cookie_jar=aiohttp.DummyCookieJar(),
                raise_for_status=False,
                trust_env=False,
            )
        return self._sessions[scheme]


def _forbidden(error: ForbiddenAddress) -> WebhookAnswer:
    return WebhookAnswer(WebhookState.FORBIDDEN, "address", cleaned(first_line(error)))


def _is_literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
