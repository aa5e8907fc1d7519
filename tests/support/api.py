"""Asking the HTTP API, over the loopback."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3
from sqlalchemy import Engine

from producers import history
from producers.api import keys
from producers.api.keys import KeyScope

ALL_OF_A_REALM = frozenset(KeyScope) - keys.WHOLE_FLEET
ALL_OF_OPERATORS = frozenset(KeyScope) - keys.OF_AN_UPSTREAM


def make_key(
    engine: Engine,
    name: str,
    *,
    upstream: str | None = "shop",
    scopes: Collection[KeyScope] | None = None,
    per_second: int = 1_000_000,
    **narrowed: Any,
) -> str:
    """A key with all the scopes it can have, unless said."""
    if scopes is None:
        scopes = ALL_OF_OPERATORS if upstream is None else ALL_OF_A_REALM
    with history.acting(history.Operator("tests")), engine.begin() as tx:
        return keys.create(tx, name, scopes, upstream=upstream, per_second=per_second, **narrowed)[
            1
        ]


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int
    headers: Any
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def code(self) -> str:
        return str(self.json["code"])

    @property
    def codes(self) -> Sequence[str]:
        return [problem["code"] for problem in self.json.get("problems", ())]

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.data.splitlines()]


class Client:
    """Asks one server with one key."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self.key = key
        self._pool = urllib3.PoolManager(retries=False, timeout=60, maxsize=80)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Said:
        """Bodies that are no bytes are sent as JSON; ``_`` in names of headers stands for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        answer = self._pool.request(method, self.url + path, body=body, headers=sent)
        return Said(answer.status, answer.headers, answer.data)

    def close(self) -> None:
        self._pool.clear()
