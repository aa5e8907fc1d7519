"""Where the links of e-mails lead: what a page shows, what its button does, and what does nothing."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from producers.intake.links import Links, Purpose
from tests.support.given import line

Served = Callable[..., Any]


@pytest.fixture
def served(life: Any) -> Iterator[Served]:
    """Starts a fleet with its pages; ``world.http`` asks them and follows no redirect."""
    clients = []

    def start(**settings: Any) -> Any:
        world = life(pages=True, **settings)
        world.http = httpx.Client(base_url=world.fleet.pages.url, timeout=10)
        clients.append(world.http)
        return world

    yield start
    for client in clients:
        client.close()


def links_of(world: Any) -> Links:
    return Links.of(world.fleet.settings)


def link(world: Any, purpose: str, *services: Any, **more: Any) -> str:
    """A link as an e-mail of now would have it."""
    chosen = services or world.services()
    whose = {"customer": chosen[0].customer_id}
    if purpose in ("renew", "accept"):
        wanted = [{"id": str(s.id), "expires_on": world.expiry(s).isoformat()} for s in chosen]
        command: dict[str, Any] = {"command": "renew", **whose, "services": wanted, **more}
    else:
        command = {"command": purpose, **whose, "services": [str(s.id) for s in chosen]}
    return links_of(world).url(Purpose(purpose), command, world.fleet.clock.now())


def text_of(answer: httpx.Response) -> str:
    """What is read on a page, in one line."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    body = re.sub(r"<[^>]+>", " ", answer.text.partition("<body>")[2])
    return " ".join(body.split())


def test_opening_a_link_shows_what_it_does_and_changes_nothing(served: Served) -> None:
    world = served()
    service = world.order(line(domain="a.example"))
    url = link(world, "stop")
    before = world.happened()

    for method in ("GET", "HEAD", "GET"):
        answer = world.http.request(method, url, headers={"Sec-Purpose": "prefetch"})
        assert answer.status_code == 200, answer.text
    page = text_of(world.http.get(url))

    assert "Ne plus renouveler ce service" in page
    assert "a.example" in page
    assert world.happened() == before
    assert world.service().mode == service.mode == "automatic"


def test_smoke(served: Served) -> None:
    world = served()
    world.order(line(domain="a.example"))
    url = link(world, "renew")
    print(text_of(world.http.get(url)))
    answer = world.http.post(url)
    print(answer.status_code, answer.headers)
    print(text_of(world.http.get(answer.headers["location"])))
    answer = world.http.get(links_of(world).account_url("alice", world.fleet.clock.now()))
    print(answer.headers["location"])
    print(text_of(world.http.get(answer.headers["location"])))
