"""The HTTP API of RabbitMQ's management plugin, as an administrator."""

import json
import ssl
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import urllib3

from schemas.errors import ConfigurationError
from schemas.urls import split_with_host

_SETTING = "AUTORENEW_BROKER_MANAGEMENT_URL"
_PORTS = {"http": 15672, "https": 15671}
_OF_A_VHOST = ("/permissions/", "/topic-permissions/", "/policies/")
_UNAUTHORIZED, _NOT_FOUND, _FAILED = 401, 404, 300


class Management:
    """What an administrator does to one virtual host.

    Args:
        url: with an administrator's name and password; it may end with a path, and with
            ``?cafile=…``, whom to trust instead of those the system trusts.

    Raises:
        ConfigurationError: of every method, too: it cannot be used, cannot be reached, or refuses.
    """

    def __init__(self, url: str, vhost: str) -> None:
        try:
            parts = split_with_host(url, "http", "https")
            options = dict(parse_qsl(parts.query, keep_blank_values=True))
            if parts.query and list(options) != ["cafile"]:
                raise ValueError("after the ? comes cafile=FILE, and nothing else")
            if not parts.username or parts.password is None:
                raise ValueError("names no administrator and password")
            context = ssl.create_default_context(cafile=options.get("cafile"))
        except (ssl.SSLError, OSError):
            raise ConfigurationError(f"{_SETTING}: its cafile cannot be read as PEM") from None
        except ValueError as error:
            raise ConfigurationError(f"{_SETTING}: {error}") from None
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        self._base = (
            f"{parts.scheme}://{host}:{parts.port or _PORTS[parts.scheme]}"
            f"{parts.path.rstrip('/')}/api"
        )
        self._vhost = vhost
        self._user = unquote(parts.username)
        credentials = f"{self._user}:{unquote(parts.password)}"
        self._headers = {
            "Authorization": f"Basic {b64encode(credentials.encode()).decode()}",
            "Content-Type": "application/json",
        }
        self._http = urllib3.PoolManager(
            retries=False,
            timeout=10,
            ssl_context=context if parts.scheme == "https" else None,
        )

    def check(self) -> tuple[int, ...]:
        """Check that we are an administrator.

        Returns:
            The version of RabbitMQ, such as (4, 0, 5).
        """
        tags = self._call("GET", "/whoami")["tags"]
        if "administrator" not in (tags.split(",") if isinstance(tags, str) else tags):
            raise ConfigurationError(f"{_SETTING}: {self._user} is no administrator")
        version = str(self._call("GET", "/overview")["rabbitmq_version"])
        return version_of(version)

    def put_user(
        self, user: str, password: str, permissions: Mapping[str, str] | None = None
    ) -> None:
        """Create a user, or give one another password.

        Args:
            permissions: on this virtual host; None: those stay as they are.
        """
        self._call("PUT", f"/users/{quote(user, safe='')}", {"password": password, "tags": ""})
        if permissions is not None:
            self._call("PUT", f"/permissions/{self._host}/{quote(user, safe='')}", permissions)

    def put_topics(self, user: str, exchange: str, write: str, read: str) -> None:
        """With which routing keys a user may publish to a topic exchange, and bind queues to it."""
        said = {"exchange": exchange, "write": write, "read": read}
        self._call("PUT", f"/topic-permissions/{self._host}/{quote(user, safe='')}", said)

    def put_policy(self, name: str, policy: Mapping[str, Any]) -> None:
        self._call("PUT", f"/policies/{self._host}/{quote(name, safe='')}", policy)

    def policies(self) -> list[dict[str, Any]]:
        """The policies of the virtual host."""
        found: list[dict[str, Any]] = self._call("GET", f"/policies/{self._host}")
        return found

    @property
    def _host(self) -> str:
        return quote(self._vhost, safe="")

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body)
        try:
            answer = self._http.request(method, self._base + path, body=data, headers=self._headers)
        except (urllib3.exceptions.HTTPError, UnicodeError) as error:
            raise ConfigurationError(f"{_SETTING}: cannot be reached: {_said(error)}") from None
        if answer.status == _UNAUTHORIZED:
            raise ConfigurationError(
                f"{_SETTING}: wrong user name or password, or {self._user} is no administrator"
            )
        if answer.status == _NOT_FOUND and path.startswith(_OF_A_VHOST):
            raise ConfigurationError(f"there is no vhost {self._vhost}")
        try:
            found = json.loads(answer.data) if answer.data else None
        except ValueError:
            raise ConfigurationError(f"{_SETTING}: what answers is no management API") from None
        if answer.status >= _FAILED:
            why = found.get("reason", "") if isinstance(found, dict) else ""
            said = f"{answer.status} {' '.join(str(why).split())}".strip()
            raise ConfigurationError(f"{_SETTING}: {method} {path}: {said}")
        return found


def version_of(text: str) -> tuple[int, ...]:
    """A version as numbers: ``4.0.5`` -> (4, 0, 5)."""
    numbers = []
    for part in text.split("."):
        digits = "".join(c for c in part if c.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def _said(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return " ".join(str(cause).rpartition(": ")[2].split()) or type(cause).__name__
