"""Secrets stay where they belong: everything that a fleet writes is searched for them."""

import io
import json
import logging
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest

from autorenew.cli import main
from autorenew.console import accounts
from producers import history
from producers.control import webhooks
from producers.events.composing import Outgoing
from schemas import logs
from schemas.values import OperatorRole
from tests.support.api import Client, make_key
from tests.support.given import line, order, wait_until
from tests.support.pages import Shop, shop
from tests.support.receiver import Receiver, Request
from workers.events.signing import new_secret

# Columns that hold a secret -> what, and why there.
MAY_HOLD: Mapping[tuple[str, str], str] = {
    ("payment_methods", "token"): "what a gateway is asked with; role billing reads it",
    ("webhook_endpoints", "secret"): "what signs; role events reads it",
    ("webhook_endpoints", "previous_secret"): "what signs for a day more; role events reads it",
}
# The client that this test asks with.
OUR_OWN = ("httpx", "httpcore", "urllib3")


class KeptExchange:
    """An exchange that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Outgoing] = []

    def publish(self, events: Sequence[Outgoing]) -> None:
        self.events += events

    def idle(self, seconds: float, wake: int | None = None) -> None:
        threading.Event().wait(seconds)

    def close(self) -> None:
        pass


class KeptLogs(logging.Handler):
    """Every record, as programs and as people get it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._formatters = (logs._Json(), logs._Text())

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(OUR_OWN):
            self.lines += [one.format(record) for one in self._formatters]


@dataclass
class Written:
    """A fleet's life, and what was written in it."""

    world: Shop
    secrets: dict[str, str] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)

    def secret(self, name: str, value: str | None = None) -> str:
        """One that is known, and found nowhere else by chance."""
        made = f"{name.replace(' ', '-')}-{secrets.token_hex(12)}" if value is None else value
        self.secrets[name] = made
        return made

    def note(self, where: str, *texts: str | bytes) -> None:
        kept = self.said.setdefault(where, [])
        kept += [text.decode("utf-8", "replace") if isinstance(text, bytes) else text
                 for text in texts]  # fmt: skip


def failing(_request: Request) -> tuple[int, dict[str, str]]:
    return 500, {}


@pytest.fixture(scope="module")
def written(
    postgres: Any, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Written]:
    kept, exchange = KeptLogs(), KeptExchange()
    root = logging.getLogger()
    level = root.level
    root.addHandler(kept)
    root.setLevel(logging.DEBUG)
    try:
        with (
            Receiver() as receiver,
            Receiver(failing) as broken,
            shop(
                postgres, template, tmp_path_factory.mktemp("secrets"),
                exchange=exchange, webhook_allowed_networks=["127.0.0.0/8"],
                link_secret=(link_secret := secrets.token_urlsafe(32)),
            ) as world,
        ):  # fmt: skip
            life = Written(world)
            life.secret("link secret", link_secret)
            for role, password in world.fleet._postgres.role_passwords().items():
                life.secret(f"password of {role}", password)
            _live(life, receiver, broken)
            wait_until(lambda: len(receiver.requests) > 3, "webhooks are delivered")
            life.note("webhooks", *(request.body for request in receiver.requests))
            life.note("webhooks", *(json.dumps(r.headers) for r in receiver.requests))
            life.note("events", *(event.body for event in exchange.events))
            life.note("events", *(event.routing_key for event in exchange.events))
            life.note("metrics", generate_latest())
            life.note("logs", *kept.lines)
            yield life
    finally:
        root.removeHandler(kept)
        root.setLevel(level)


def _live(life: Written, receiver: Receiver, broken: Receiver) -> None:
    """Orders, charges, reminders, webhooks, API calls, links, operators, and mistakes in all."""
    world = life.world
    api = world.fleet.engine("api")
    with history.acting(history.Operator("ann")), api.begin() as tx:
        for name, url in (("good", receiver.url()), ("bad", broken.url())):
            secret = life.secret(f"webhook secret of {name}", new_secret())
            webhooks.add(tx, name, url, "shop", [], secret)
        found = webhooks.find(tx, "good")
        webhooks.rotate(tx, found, life.secret("second webhook secret", new_secret()), 3600)
    server = world.fleet.serve_api()
    key = life.secret("key", make_key(api, "shop-key"))
    life.secret("secret of the key", key.split("_", 2)[2])  # it may have more of them
    client = Client(server.url, key)
    operators = life.secret("key of operators", make_key(api, "ops", upstream=None))
    _ask(life, client, Client(server.url, operators))
    _operators(life)
    _links(life)
    _commands(life, key)


def _ask(life: Written, client: Client, ops: Client) -> None:
    def ask(method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = client(method, path, body, **headers)
        life.note("answers of the API", answer.data, str(dict(answer.headers)))
        return answer

    def token(name: str) -> str:
        return life.secret(f"token {name}")

    fine = order("s-1", line(), line("vm"), customer="sue")
    agreed = [{"contract": "terms", "version": 2}, {"contract": "cloud", "version": 1}]
    first = fine | {"payment_method": token("of an order"), "contracts": agreed}
    assert ask("POST", "/v1/orders?wait=20", first).status == 200
    declined = {"operation": "charge", "customer": "dan", "fault": "decline"}
    life.world.fleet.simulator.simulator.faults.add(declined)
    ask("POST", "/v1/orders", order("s-2", customer="dan") | {"payment_method": token("declined")})
    # Mistakes: in the wrong place, of the wrong kind, twice, in what is no JSON.
    ask("POST", "/v1/orders", order("s-3") | {"payment_method": {"token": token("nested")}})
    ask("POST", "/v1/orders", order("s-4") | {"payment_method": token("with a blank") + " é"})
    ask("POST", "/v1/orders", order("s-5") | {"payment_method": [token("in a list")]})
    ask("POST", "/v1/orders", order("s-6") | {"payment_methods": token("misspelt")})
    ask("POST", "/v1/orders", order("s-7", line("none")) | {"payment_method": token("refused")})
    cut = json.dumps(order("s-8") | {"payment_method": token("cut")}).encode()[:-2]
    ask("POST", "/v1/orders", cut)
    ask("POST", "/v1/orders:batch", cut + b"\n" + json.dumps(fine).encode())
    put = {"token": token("put"), "expires": "2099-01"}
    path = "/v1/customers/sue/payment-method"
    for name in ("once", "once", "again"):
        ask("PUT", path, put, Idempotency_Key=name)
    ask("PUT", path, {"token": [token("put wrongly")]})
    ask("PUT", "/v1/customers/nobody/payment-method", {"token": token("put for nobody")})
    for wrong in (life.secret("unknown key", "ark_abcdef123456_" + secrets.token_urlsafe(32)),
                  client.key[:17] + life.secret("other secret")):  # fmt: skip
        ask("GET", "/v1/services", Authorization=f"Bearer {wrong}")
        ask("GET", f"/v1/services?key={wrong}")
    for path in ("customers/sue", "services", "orders/s-1", "customers/sue/invoices", "catalogue"):
        ask("GET", f"/v1/{path}")
    for path in ("failed", "lanes", "audit", "customers/sue"):
        life.note("answers of the API", ops("GET", f"/v1/{path}").data)
    for document in (
        order("p-1", customer="pia") | {"payment_method": token("placed")},
        order("p-2", customer="pia") | {"payment_method": token("placed wrongly"), "colour": 1},
        {"command": "payment_method", "customer": "pia", "token": token("commanded")},
        {"command": "payment_method", "customer": "pia", "token": token("wrong\n") + "\n"},
    ):
        answers = life.world.fleet.intake.place("shop", "amqp", [json.dumps(document).encode()])
        life.note("answers of the intake", *map(str, answers))
    answers = life.world.fleet.intake.place("shop", "amqp", [cut])
    life.note("answers of the intake", *map(str, answers))


def _operators(life: Written) -> None:
    """Operators sign in, well and wrongly."""
    engine = life.world.fleet.engine("console")
    with history.acting(history.Operator("ann")), engine.begin() as tx:
        accounts.add(tx, "olaf", OperatorRole.ADMINISTRATOR, life.secret("password of olaf"))
        accounts.set_password(tx, "olaf", life.secret("new password of olaf"))
        life.secret("one-time link", accounts.make_link(tx, "olaf"))
    assert accounts.is_password(engine, "olaf", life.secrets["new password of olaf"])
    assert not accounts.is_password(engine, "olaf", life.secret("wrong password"))
    with engine.begin() as tx:
        accounts.use_link(tx, life.secrets["one-time link"])


def _links(life: Written) -> None:
    """Reminders go out; their links are opened and pressed, well and wrongly."""
    world = life.world
    (service,) = world.buy("lou", line())
    world.fleet.pass_time(timedelta(days=25))
    mails = [str(mail.get_body(("plain",)).get_content()) for mail in world.mails()]
    urls = sorted({url for mail in mails for url in re.findall(r"http://\S+/do/\S+", mail)})
    assert urls, "reminders have links"
    old = world.now() - timedelta(days=99)
    urls += [world.link("stop", service), world.link("stop", service, at=old)]
    for n, url in enumerate(urls):
        token = life.secret(f"link {n}", urlsplit(url).path.rpartition("/")[2])
        for method in ("GET", "POST"):
            _visit(life, method, url)
        _visit(life, "GET", f"/do/{token[:-3]}")
        _visit(life, "POST", "/link", data={"link": token})
    life.secret("page of services", world.account("lou").rpartition("/")[2])
    _visit(life, "GET", world.account("lou"))
    _visit(life, "POST", "/link", data={"customer": "lou@example.com"})
    world.fleet.settle(30)


def _visit(life: Written, method: str, url: str, **more: Any) -> None:
    answer: httpx.Response = life.world.http.request(method, url, **more)
    if (to := answer.headers.get("location", "")).rpartition("/")[0].endswith(("/done", "/my")):
        life.secret(f"page {len(life.secrets)}", to.rpartition("/")[2])


def _commands(life: Written, key: str) -> None:
    """What an operator types, with and without mistakes."""
    world = life.world

    def url(role: str) -> str:
        found = world.fleet.engine(role).url.set(drivername="postgresql")
        return str(found.render_as_string(hide_password=False))

    password = life.secret("password in a URL")
    wrong = f"postgresql://autorenew_api:{password}@127.0.0.1:1/autorenew"
    commands = [
        ["tasks", "list"], ["failed", "list", "--json"], ["webhooks", "list", "--json"],
        ["webhooks", "show", "bad", "--json"], ["keys", "list", "--json"], ["lanes", "list"],
        ["rejected", "list", "--json"], ["order", "show", "s-1", "--upstream", "shop", "--json"],
        ["customer", "show", "sue", "--json"], ["events", "status"],
        ["webhooks", "add", "third", f"http://user:{password}@127.0.0.1:9/", "--realm", "shop"],
        ["service", "click", f"http://127.0.0.1:9/do/{life.secrets['link 0'][:-3]}"],
        ["service", "payment-method", "sue", life.secret("typed token") + "é"],
    ]  # fmt: skip
    runs: list[tuple[list[str], dict[str, str]]] = [
        (command, {"AUTORENEW_DATABASE_URL": url("api")}) for command in commands
    ]
    for value in (wrong, wrong.replace("://", ":/"), wrong.replace(":1/", ":x/")):
        runs.append((["tasks", "list"], {"AUTORENEW_DATABASE_URL": value}))
    for value in (f"amqp://relay:{password}@127.0.0.1:1/", f"amqp:/relay:{password}@127.0.0.1"):
        more = {"AUTORENEW_DATABASE_URL": url("relay"), "AUTORENEW_BROKER_URL": value}
        runs.append((["relay"], more))
    runs.append((["tasks", "list"], {"AUTORENEW_REALMS": password}))
    runs.append((["tasks", "list"], {"AUTORENEW_DRIVER_TOKENS": f'{{"web": ["{password}"]}}'}))
    runs.append((["tasks", "list"], {"AUTORENEW_ROLE_PASSWORDS": f'{{"api": "{password}"'}))
    runs.append((["tasks", "list"], {"AUTORENEW_LINK_SECRET": "x" * 3, "AUTORENEW_SMTP_URL":
                 f"smtp:/u:{password}@h"}))  # fmt: skip
    for command, environment in runs:
        result = CliRunner().invoke(main, command, env=environment, prog_name="autorenew")
        life.note("commands", f"{command[:2]}: {result.output}", repr(result.exception))
        life.note("commands", str(result.stderr))


def found_in(text: str, known: Mapping[str, str]) -> list[str]:
    return [name for name, secret in known.items() if secret in text]


def test_no_secret_is_in_what_is_said(written: Written) -> None:
    for where in ("logs", "events", "webhooks", "answers of the API", "metrics", "commands"):
        assert written.said[where], where
    leaks = {
        (where, name, _around(text, written.secrets[name]))
        for where, texts in written.said.items()
        for text in texts
        for name in found_in(text, written.secrets)
    }
    assert not leaks


def _around(text: str, secret: str) -> str:
    at = text.index(secret)
    return text[max(0, at - 120) : at] + "SECRET" + text[at + len(secret) :][:60]


def test_no_secret_is_in_the_database_but_where_it_belongs(written: Written) -> None:
    database = written.world.database
    tables = database.all("""
        SELECT table_name FROM information_schema.tables
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1
    """)
    leaks, used = set(), set()
    for (table,) in tables:
        for row in database.all(f'SELECT * FROM "{table}"'):
            for column, value in row._mapping.items():
                for name in found_in(_as_text(value), written.secrets):
                    place = (table, column)
                    (used if place in MAY_HOLD else leaks).add(
                        place if place in MAY_HOLD else (*place, name)
                    )
    assert not leaks
    assert used == set(MAY_HOLD), "what may hold a secret does"


def _as_text(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("latin-1")
    return json.dumps(value, default=str, ensure_ascii=False)


def test_search_finds_what_is_there() -> None:
    stream = io.StringIO()
    stream.write("before tok-1 after")
    assert found_in(stream.getvalue(), {"token": "tok-1", "other": "tok-2"}) == ["token"]
