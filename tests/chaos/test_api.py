"""API processes are killed under load: no order answered 202 is lost, and none is taken twice."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from autorenew.local.fleet import Member
from tests.conftest import Database
from tests.support.api import Client, make_key
from tests.support.given import order, wait_until

KILLS = 4
CLIENTS = 8


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture
def members(database: Database, tmp_path: Path) -> Iterator[dict[str, Member]]:
    """Two API processes, each started again when it dies; by their URLs."""
    urls = {
        role: database.engine(role).url.set(drivername="postgresql").render_as_string(False)
        for role in ("api", "readonly")
    }
    environment = {
        "AUTORENEW_DATABASE_URL": urls["api"],
        "AUTORENEW_READ_DATABASE_URL": urls["readonly"],
    }
    found = {}
    for name in ("one", "two"):
        port = free_port()
        command = ["api", "--port", str(port)]
        found[f"http://127.0.0.1:{port}"] = Member(
            name, command, environment, tmp_path / f"{name}.log"
        )
    yield found
    for member in found.values():
        member.stop(20)


def is_up(url: str) -> bool:
    try:
        return Client(url, None)("GET", "/healthz").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_killed_processes_lose_and_double_nothing(
    database: Database, members: dict[str, Member]
) -> None:
    key = make_key(database.engine("api"), "shop")
    wait_until(lambda: all(map(is_up, members)), "both are up", 60)
    numbers, over = itertools.count(1), threading.Event()
    accepted: set[str] = set()
    repeated: set[str] = set()
    failed: list[str] = []
    tried_again = itertools.count()

    def send() -> None:
        clients = itertools.cycle([Client(url, key) for url in members])
        while not over.is_set():
            document = order(f"k-{next(numbers)}", customer="alice")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    answer = next(clients)("POST", "/v1/orders", document)
                except urllib3.exceptions.HTTPError:  # killed: whether it was taken is unknown
                    next(tried_again)
                    time.sleep(0.05)
                    continue
                if answer.status == 202:
                    accepted.add(document["key"])
                    if "idempotency-replayed" in answer.headers:
                        repeated.add(document["key"])
                    break
                failed.append(f"{answer.status} {answer.data!r}")
            else:
                failed.append(f"{document['key']} was never taken")

    threads = [threading.Thread(target=send) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    victims = itertools.cycle(members.items())
    for number in range(1, KILLS + 1):
        wait_until(lambda n=number: len(accepted) > 40 * n, "orders are taken", 60)
        url, member = next(victims)
        member.kill()
        wait_until(lambda m=member, n=number: m.deaths >= (n + 1) // 2, "it died", 30)
        wait_until(lambda u=url: is_up(u), "it is up again", 60)
    over.set()
    for thread in threads:
        thread.join(90)

    assert failed == []
    assert next(tried_again) > 0  # kills met requests under way
    kept = {row.key for row in database.all("SELECT key FROM orders")}
    assert kept == accepted
    assert database.value("SELECT count(*) FROM orders") == len(accepted)
    assert database.value("SELECT count(*) FROM order_lines") == len(accepted)
    assert database.value("SELECT count(*) FROM tasks WHERE name = 'price'") == len(accepted)
    assert database.value("SELECT count(*) FROM events WHERE name = 'order.accepted'") == len(
        accepted
    )


def test_process_that_is_told_to_stop_answers_what_it_has_begun(
    database: Database, members: dict[str, Member]
) -> None:
    key = make_key(database.engine("api"), "shop")
    url, member = next(iter(members.items()))
    wait_until(lambda: is_up(url), "it is up", 60)
    answers: list[int] = []

    def wait_for_the_end() -> None:
        answers.append(Client(url, key)("POST", "/v1/orders?wait=30", order("w-1")).status)

    thread = threading.Thread(target=wait_for_the_end)
    thread.start()
    wait_until(lambda: database.value("SELECT count(*) FROM orders") == 1, "it is taken")
    began = time.monotonic()
    assert member.stop(30) == 0
    thread.join(10)
    assert answers == [202]
    assert time.monotonic() - began < 20
