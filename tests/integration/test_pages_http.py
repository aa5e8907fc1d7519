"""The pages as a server: far databases, prefixes of a proxy, limits of addresses."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from autorenew.cli import main
from producers.intake import Intake
from producers.intake.links import Links, Purpose
from producers.pages.app import application
from producers.web.serving import WebServer
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from schemas.database import connect
from schemas.settings import Settings
from tests.conftest import Database
from tests.support.given import order

SECRET = "a secret of these tests"
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
Serve = Callable[..., httpx.Client]


@pytest.fixture
def serve(database: Database) -> Iterator[Serve]:
    """Serves the pages over the test's database; gives a client of them."""
    opened: list[Any] = []

    def start(*, away: bool = False, **settings: Any) -> httpx.Client:
        base = {"link_base_url": "https://my.example.com", "link_secret": SECRET}
        write = connect(NOWHERE) if away else database.engine("api")
        read = connect(NOWHERE) if away else database.engine("readonly")
        app = application(
            Settings(**(base | settings)),
            write=write,
            read=read,
            intake=Intake(write, CatalogueCache(), SystemClock()),
            clock=SystemClock(),
        )
        server = WebServer(app, host="127.0.0.1", port=0, name="pages", grace=1).start()
        client = httpx.Client(base_url=server.url, timeout=20)
        opened.extend([client, server])
        if away:
            opened.extend([_Disposed(write), _Disposed(read)])
        return client

    yield start
    for one in opened:
        one.close()


class _Disposed:
    def __init__(self, engine: Any) -> None:
        self.close = engine.dispose


def stop(base: str = "https://my.example.com", **changes: Any) -> str:
    """The path of a link that stops a service."""
    command = {"command": "stop", "customer": "alice",
               "services": ["6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"]} | changes  # fmt: skip
    url = Links(base, SECRET).url(Purpose.STOP, command, SystemClock().now())
    return httpx.URL(url).path


def test_a_database_that_is_away_is_said_plainly_and_may_be_tried_again(serve: Serve) -> None:
    http = serve(away=True)
    for method in ("GET", "POST"):
        answer = http.request(method, stop(), headers={"Accept-Language": "fr"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert "Rien n’a été changé" in answer.text  # noqa: RUF001 - as French is written
    assert http.post("/link", data={"customer": "alice"}).status_code == 503
    assert http.get("/healthz").status_code == 200
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["missing"]) == (503, ["database", "read database"])


def test_pages_may_be_below_a_path_of_a_site(serve: Serve, database: Database) -> None:
    database.place(order("k-1"))
    base = "https://example.com/my/space"
    http = serve(link_base_url=f"{base}/")
    answer = http.get(stop(base))
    assert answer.status_code == 200
    assert 'href="/my/space/style-' in answer.text
    style = answer.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    assert http.get(style).status_code == 200
    ended = http.post(stop(base)).headers["location"]
    assert ended.startswith("/my/space/done/")
    assert http.get(ended).status_code == 200
    account = Links(base, SECRET).account_url("alice", SystemClock().now())
    assert http.get(httpx.URL(account).path).headers["location"].startswith("/my/space/my/")
    assert http.get("/healthz").status_code == 200
    assert http.get(stop()).status_code == 404


def test_answers_over_tls_say_that_there_is_no_other_way(serve: Serve) -> None:
    assert "max-age=" in serve().get("/").headers["strict-transport-security"]
    http = serve(link_base_url="http://127.0.0.1:8080")
    assert "strict-transport-security" not in http.get("/").headers


def test_an_address_that_asks_too_often_has_to_wait_and_others_have_not(serve: Serve) -> None:
    http = serve(pages_per_minute=5, trusted_proxies=["127.0.0.0/8"])

    def ask(client: str, *more: str) -> int:
        forwarded = {"X-Forwarded-For": ", ".join([*more, client])}
        return http.get("/do/forged", headers=forwarded).status_code

    assert [ask("203.0.113.1") for _ in range(7)] == [404] * 5 + [429] * 2
    assert ask("203.0.113.1", "198.51.100.9") == 429  # whatever it claims to be
    assert ask("203.0.113.2") == 404
    late = http.get("/", headers={"X-Forwarded-For": "203.0.113.1", "Accept-Language": "cs"})
    assert "Příliš mnoho požadavků" in late.text
    assert 1 <= int(late.headers["retry-after"]) <= 12
    assert late.headers["content-security-policy"]
    assert http.get("/healthz", headers={"X-Forwarded-For": "203.0.113.1"}).status_code == 200


def test_nobody_chooses_their_own_address_without_a_proxy(serve: Serve) -> None:
    http = serve(pages_per_minute=3)
    statuses = [
        http.get("/", headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code for n in range(5)
    ]
    assert statuses == [200, 200, 200, 429, 429]


def test_new_links_are_asked_for_less_often_than_pages(serve: Serve) -> None:
    http = serve(pages_per_minute=40)
    statuses = [http.post("/link", data={"customer": "x"}).status_code for _ in range(4)]
    assert statuses == [303, 303, 429, 429]
    assert http.get("/").status_code == 200


def test_link_of_a_customer_who_is_unknown_here_is_not_valid(serve: Serve) -> None:
    http = serve()
    for method in ("GET", "POST"):
        assert http.request(method, stop(customer="nobody")).status_code == 404


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("AUTORENEW_LINK_BASE_URL", "where the links in e-mails lead"),
        ("AUTORENEW_LINK_SECRET", "what signs the links"),
        ("AUTORENEW_READ_DATABASE_URL", "role readonly"),
        ("AUTORENEW_DATABASE_URL", "postgresql://"),
    ],
)
def test_process_that_lacks_a_setting_says_which(
    database: Database, missing: str, said: str
) -> None:
    environment = {
        "AUTORENEW_LINK_BASE_URL": "https://my.example.com",
        "AUTORENEW_LINK_SECRET": SECRET,
        "AUTORENEW_DATABASE_URL": database.url,
        "AUTORENEW_READ_DATABASE_URL": database.url,
    }
    result = CliRunner(env={**environment, missing: None}).invoke(main, ["pages"])
    assert result.exit_code == 2
    assert f"{missing} is not set" in result.stderr
    assert said in result.stderr


def test_process_is_counted_until_it_is_stopped(database: Database) -> None:
    def url(role: str) -> str:
        of_role = database.engine(role).url.set(drivername="postgresql", host="127.0.0.1")
        return of_role.render_as_string(hide_password=False)

    environment = {
        "AUTORENEW_LINK_BASE_URL": "https://my.example.com",
        "AUTORENEW_LINK_SECRET": SECRET + " that is long",
        "AUTORENEW_DATABASE_URL": url("api"),
        "AUTORENEW_READ_DATABASE_URL": url("readonly"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "autorenew", "pages", "--port", "0"],
        env=os.environ | environment | {"PYTHONUNBUFFERED": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        served = process.stdout.readline().removeprefix("pages on ").strip()
        assert httpx.get(f"{served}/readyz").json() == {"status": "ok", "missing": []}
        ends = time.monotonic() + 20
        while not database.value("SELECT count(*) FROM processes WHERE process = 'pages'"):
            assert time.monotonic() < ends
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert database.value("SELECT ended_at IS NOT NULL FROM processes")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_networks_of_proxies_are_checked() -> None:
    environment = {"AUTORENEW_TRUSTED_PROXIES": '["10.0.0.0/8", "proxy.example"]'}
    result = CliRunner(env=environment).invoke(main, ["pages"])
    assert result.exit_code == 2
    assert "AUTORENEW_TRUSTED_PROXIES[1]" in result.stderr
