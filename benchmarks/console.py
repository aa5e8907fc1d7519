"""Pages of the console, asked for over HTTP by somebody who has signed in."""

import re
import time

import urllib3
from sqlalchemy import Engine

from autorenew.console import accounts, serving
from schemas.clock import SystemClock
from schemas.settings import Settings
from schemas.values import OperatorRole

CODES = 50
"""Reasons of each of four drivers: 200 groups."""
_NAME, _PASSWORD = "benchmark", "a password of a benchmark"


class Visitor:
    """A console, and somebody who looks at its pages.

    Args:
        engine: as the role ``console``.
        reader: as the role ``readonly``.
    """

    def __init__(self, engine: Engine, reader: Engine) -> None:
        with engine.begin() as tx:
            accounts.add(tx, _NAME, OperatorRole.READER, _PASSWORD)
        self._server = serving.serve(
            engine, reader, SystemClock(), Settings(), host="127.0.0.1", port=0
        )
        self._http = urllib3.PoolManager()
        self._cookie = ""

    def __enter__(self) -> "Visitor":
        self._server.start()
        page = self._http.request("GET", f"{self._server.url}/sign-in")
        form = re.search(r'name="csrf" value="(\w+)"', page.data.decode())
        assert form is not None
        fields = {"csrf": form[1], "name": _NAME, "password": _PASSWORD, "next": "/"}
        answer = self._http.request(
            "POST", f"{self._server.url}/sign-in", fields=fields, encode_multipart=False,
            headers={"cookie": page.headers["set-cookie"].partition(";")[0]}, redirect=False,
        )  # fmt: skip
        self._cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._http.clear()
        self._server.close()

    def look(self, path: str) -> tuple[float, str]:
        """Seconds until a page was there as a whole, and the page.

        Raises:
            RuntimeError: it was not given.
        """
        started = time.perf_counter()
        answer = self._http.request(
            "GET", self._server.url + path, headers={"cookie": self._cookie}, redirect=False
        )
        seconds = time.perf_counter() - started
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        return seconds, answer.data.decode()


def groups_on(page: str) -> int:
    """Rows of the page *Failed*."""
    return page.count('<tr><td data-label="Tasks"')
