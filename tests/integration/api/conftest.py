"""One fleet with its HTTP API for all tests of a file; each uses customers of its own."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.api import Client, make_key
from tests.support.databases import Databases
from tests.support.life import Life, lasting

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def world(
    postgres: Any, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Life]:
    """A fleet on a virtual clock, with renewal switched on; it stands still between tests."""
    name = f"api_{next(_numbers)}"
    settings: dict[str, Any] = {"retry_attempts": 2, "realms": {"partner": "shop"}}
    with lasting(postgres, databases, tmp_path_factory.mktemp("api"), name, **settings) as world:
        yield world


@pytest.fixture(scope="module")
def server(world: Life) -> Any:
    return world.fleet.serve_api()


@pytest.fixture(scope="module")
def client_of(server: Any, world: Life) -> Iterator[Callable[..., Client]]:
    """Makes a key, and a client that uses it."""
    with ExitStack() as stack:
        count = itertools.count(1)

        def make(name: str = "", **options: Any) -> Client:
            name = name or f"key-{next(count)}"
            key = make_key(world.fleet.engine("api"), name, **options)
            client = Client(server.url, key)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture(scope="module")
def shop(client_of: Callable[..., Client]) -> Client:
    return client_of("shop-key")


@pytest.fixture(scope="module")
def other(client_of: Callable[..., Client]) -> Client:
    return client_of("other-key", upstream="other")


@pytest.fixture(scope="module")
def ops(client_of: Callable[..., Client]) -> Client:
    return client_of("ops-key", upstream=None)
