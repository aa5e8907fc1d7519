"""Every request of Libcloud, under the deadline of its call. Imports Libcloud.

Libcloud's providers build their connections themselves, some several (one to sign in); all take
the class from ``Connection.conn_class``.
"""

import logging
import ssl
from typing import Any
from urllib.parse import urljoin

import requests
from libcloud.common.base import Connection
from libcloud.http import LibcloudConnection
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from workers.outside.http import InDoubt, NotSent
from workers.outside.retry_after import retry_after
from workers.provisioning.drivers.libcloud.call import current, watch

# A list of ten thousand machines of EC2 has about 60 MB.
MAX_ANSWER_BYTES = 200_000_000
_BEFORE_ANYTHING_WAS_SENT = (NewConnectionError, ConnectTimeoutError, ssl.SSLCertVerificationError)


class _Plain(HTTPConnection):
    def _new_conn(self) -> Any:
        made = super()._new_conn()
        watch(made)
        return made

    def request(self, *args: Any, **kwargs: Any) -> None:
        watch(self.sock)  # kept from the call before
        super().request(*args, **kwargs)


class _Secure(HTTPSConnection):
    def _new_conn(self) -> Any:
        made = super()._new_conn()
        watch(made)
        return made

    def request(self, *args: Any, **kwargs: Any) -> None:
        watch(self.sock)
        super().request(*args, **kwargs)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}


class GuardedConnection(LibcloudConnection):  # type: ignore[misc]
    """No retries, no redirects (a credential would follow them), nothing of the environment."""

    def __init__(self, host: str, port: int, secure: bool | None = None, **kwargs: Any) -> None:
        has_certificate = "cert_file" in kwargs or "key_file" in kwargs
        super().__init__(host, port, secure, **kwargs)
        if current() is None:
            return
        self.session.trust_env = False
        self.session.mount("http://", _Adapter())
        if not has_certificate:  # that one has an adapter of its own, and its timeouts only
            self.session.mount("https://", _Adapter())

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        raw: bool = False,
        stream: bool = False,
        hooks: Any = None,
    ) -> None:
        call = current()
        if call is None:  # somebody else's
            super().request(method, url, body, headers, raw, stream, hooks)
            return
        with call.request() as left:
            try:
                self.response = self.session.request(
                    method=method.lower(),
                    url=urljoin(self.host, url),
                    data=body,
                    headers=self._normalize_headers(headers=headers),
                    allow_redirects=False,
                    stream=True,
                    verify=self.verification,
                    timeout=left,
                    hooks=hooks,
                )
                content = _read(self.response)
            except (requests.RequestException, HTTPError, OSError) as error:
                raise _sorted(error) from None
            wait = retry_after(self.response.headers)
            call.answered(self.response.status_code, wait, content)

    def prepared_request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        raw: bool = False,
        stream: bool = False,
    ) -> None:
        if current() is None:
            super().prepared_request(method, url, body, headers, raw, stream)
        else:
            self.request(method, url, body, headers)


def install() -> None:
    """Have all connections of Libcloud in this process made like that."""
    Connection.conn_class = GuardedConnection
    # At level DEBUG it logs the URLs of requests, in which some providers take credentials.
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _read(response: Any) -> bytes:
    content = bytearray()
    for part in response.iter_content(65536):
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            response.close()
            raise OSError("an answer that does not end")
    response._content = bytes(content)  # what is read is not read again
    return bytes(content)


def _sorted(error: BaseException) -> Exception:
    """What a fault means; its own words could hold a URL with a credential."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    for one in seen:
        if isinstance(one, ssl.SSLCertVerificationError):
            return NotSent("certificate_not_valid")
        if isinstance(one, ConnectTimeoutError):
            return NotSent("cannot_connect", "no connection in time")
    if any(isinstance(one, _BEFORE_ANYTHING_WAS_SENT) for one in seen):
        words = [one.strerror for one in seen if isinstance(one, OSError) and one.strerror]
        return NotSent("cannot_connect", f"cannot connect: {words[0]}" if words else "")
    if any(isinstance(one, requests.Timeout | TimeoutError) for one in seen):
        return InDoubt("no_answer", "no answer in time")
    return InDoubt("connection_lost", "the connection broke off")
