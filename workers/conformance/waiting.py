"""A port as a test uses it: each call is waited for, on one event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Waiting:
    """Calls a port's methods without ``await``."""

    def __init__(self, port: Any) -> None:
        self.port = port
        self._runner = asyncio.Runner()

    def perform(self, operation: Any) -> Any:
        return self._runner.run(self.port.perform(operation))

    def ask(self, operation: Any) -> Any:
        return self._runner.run(self.port.ask(operation))

    def book(self, after: str | None) -> Any:
        return self._runner.run(self.port.book(after))

    def resources(self, after: str | None) -> Any:
        return self._runner.run(self.port.resources(after))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """On the same event loop as the port's own calls."""
        return self._runner.run(coroutine)

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.port.close())
        self._runner.close()
