"""Over HTTP: urllib3 where it waits, aiohttp where it does not."""

import json
from typing import TypeVar

import aiohttp
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError
from yarl import URL

from producers.client.calls import Call, HttpAnswer, error_of
from producers.client.errors import ClientError, Overloaded, Uncertain, Unreachable
from producers.client.settings import Settings

T = TypeVar("T")
_OVERLOADED = 429
# Of a database that was lost while it committed: nobody knows whether it has.
_AWAY = 503
_GATEWAYS = (502, 504)


def _headers(call: Call[T], settings: Settings) -> dict[str, str]:
    headers = {"Accept": "application/json", "User-Agent": "autorenew-client", **call.headers}
    if settings.key is not None:
        headers["Authorization"] = f"Bearer {settings.key}"
    return headers


class Http:
    """Asks and waits; for several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = urllib3.PoolManager(retries=False, maxsize=16)

    def ask(self, call: Call[T]) -> T:
        """
        Raises:
            ClientError: see :mod:`producers.client.errors`.
        """
        timeout = urllib3.Timeout(
            connect=min(10.0, self._settings.timeout), total=self._settings.timeout
        )
        try:
            answer = self._pool.request(
                call.method,
                self._settings.url + call.path,
                body=call.body,
                headers=_headers(call, self._settings),
                timeout=timeout,
                redirect=False,
            )
        except (NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise Unreachable(_said(error)) from error
        except (HTTPError, OSError) as error:
            raise Uncertain(_said(error)) from error
        return read(call, HttpAnswer(answer.status, answer.headers, answer.data))

    def close(self) -> None:
        self._pool.clear()


class AsyncHttp:
    """Asks on the running event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, call: Call[T]) -> T:
        """As :meth:`Http.ask`."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout, sock_connect=10.0)
            self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            async with self._session.request(
                call.method,
                URL(self._settings.url + call.path, encoded=True),
                data=call.body,
                headers=_headers(call, self._settings),
                allow_redirects=False,
            ) as answer:
                found = HttpAnswer(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(_said(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Uncertain(_said(error)) from error
        return read(call, found)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def read(call: Call[T], answer: HttpAnswer) -> T:
    """What an answer means.

    Raises:
        ClientError: that nothing was done, or that nobody knows.
    """
    try:
        if 200 <= answer.status < 300:
            return call.read(answer)
        if answer.status == _OVERLOADED:
            raise Overloaded(f"HTTP {answer.status}", retry_after=_retry_after(answer))
        if answer.status == _AWAY:
            raise Uncertain(f"HTTP {answer.status}", retry_after=_retry_after(answer))
        if answer.status not in _GATEWAYS and "problem+json" in answer.headers.get(
            "Content-Type", ""
        ):
            raise error_of(
                _problem(answer),
                status=answer.status,
                repeated=answer.headers.get("Idempotency-Replayed") == "true",
            )
    except ClientError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Uncertain(f"HTTP {answer.status}, with an answer that cannot be read") from error
    if answer.status >= 500:
        raise Uncertain(f"HTTP {answer.status}")
    raise ClientError(f"HTTP {answer.status}, which is no answer of Autorenew's: is the URL right?")


def _problem(answer: HttpAnswer) -> dict[str, object]:

    found = json.loads(answer.body)
    if not isinstance(found, dict):
        raise TypeError
    return found


def _retry_after(answer: HttpAnswer) -> float | None:
    said = answer.headers.get("Retry-After", "")
    return float(said) if said.isascii() and said.isdigit() else None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
