"""Keys: what they open, for how long, how often; and that they tell nothing of what they do not."""

import json
import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from autorenew.cli import main
from producers.api import doors as doors_module
from producers.api import keys
from producers.api.doors import Doors
from producers.api.keys import KeyRing, KeyScope
from producers.intake.realms import Realms
from schemas.clock import SystemClock
from tests.conftest import Database
from tests.support.api import Client, make_key
from tests.support.given import order
from tests.support.life import Life


class TestWithout:
    @pytest.mark.parametrize(
        "header", [None, "", "Bearer", "Basic abc", "Bearer x", "Bearer ark_a_b", "Bearer ark_" * 3]
    )
    def test_a_valid_one_nothing_is_told(self, server: Any, header: str | None) -> None:
        client = Client(server.url, None)
        headers = {} if header is None else {"Authorization": header}
        for method, path in [
            ("GET", "/v1/orders/o-1"), ("POST", "/v1/orders"), ("POST", "/v1/orders:batch"),
            ("GET", "/v1/customers/alice"), ("GET", "/v1/services"), ("GET", "/v1/lanes"),
            ("POST", "/v1/failed:retry"), ("GET", "/v1/catalogue"),
        ]:  # fmt: skip
            answer = client(method, path, **headers)
            assert answer.status == 401, (method, path)
            assert answer.code in ("key_missing", "key_unknown")
            assert answer.headers["www-authenticate"].startswith("Bearer")

    @pytest.mark.parametrize("key", [None, "ark_0123456789ab_guessed"])
    def test_a_valid_one_no_batch_is_read(self, server: Any, key: str | None) -> None:
        """Given somebody who announces a large body and sends none of it."""
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            authorization = f"Authorization: Bearer {key}\r\n" if key else ""
            connection.sendall(
                b"POST /v1/orders:batch HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n"
                + authorization.encode() + b"\r\n"
            )  # fmt: skip
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in answer.lower()

    def test_health_and_the_document_need_none(self, server: Any) -> None:
        client = Client(server.url, None)
        assert client("GET", "/healthz").json == {"status": "ok"}
        assert client("GET", "/readyz").json == {"status": "ok", "missing": []}
        assert client("GET", "/v1/openapi.json").json["info"]["title"] == "Autorenew"


def test_secret_of_another_key_opens_nothing(server: Any, world: Life) -> None:
    one = make_key(world.fleet.engine("api"), "mixed-1")
    two = make_key(world.fleet.engine("api"), "mixed-2")
    mixed = "_".join([*one.split("_", 2)[:2], two.split("_", 2)[2]])
    assert Client(server.url, mixed)("GET", "/v1/catalogue").code == "key_unknown"
    assert Client(server.url, one)("GET", "/v1/catalogue").status == 200


def test_each_scope_opens_its_routes_and_no_others(client_of: Callable[..., Client]) -> None:
    routes = {
        KeyScope.ORDERS_READ: ("GET", "/v1/orders/nothing", 404),
        KeyScope.ORDERS_WRITE: ("POST", "/v1/orders", 415),
        KeyScope.CUSTOMERS_READ: ("GET", "/v1/customers/nobody/upcoming", 404),
        KeyScope.CUSTOMERS_WRITE: ("PUT", "/v1/customers/nobody/payment-method", 422),
        KeyScope.SERVICES_READ: ("GET", "/v1/services", 200),
        KeyScope.SERVICES_WRITE: (
            "POST",
            "/v1/services/00000000-0000-0000-0000-000000000000:stop",
            404,
        ),
        KeyScope.INVOICES_READ: ("GET", "/v1/invoices/FR-1", 404),
        KeyScope.CATALOGUE_READ: ("GET", "/v1/catalogue", 200),
        KeyScope.FORECAST_READ: ("GET", "/v1/forecast", 200),
        KeyScope.OPS_READ: ("GET", "/v1/failed", 200),
        KeyScope.OPS_WRITE: ("POST", "/v1/failed:retry", 422),
    }
    assert routes.keys() == set(KeyScope)
    for scope in KeyScope:
        upstream = None if scope in keys.WHOLE_FLEET else "shop"
        client = client_of(f"only {scope}", upstream=upstream, scopes=[scope])
        for other, (method, path, status) in routes.items():
            answer = client(method, path)
            expected = status if other is scope else 403
            assert answer.status == expected, (scope, method, path, answer.data)
            if other is not scope:
                assert answer.code == "scope_missing"


def test_expired_and_revoked_keys_open_nothing(
    server: Any, world: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    short = Client(server.url, make_key(world.fleet.engine("api"), "short", expires_at=soon))
    assert short("GET", "/v1/catalogue").status == 200
    gone = Client(server.url, make_key(world.fleet.engine("api"), "gone"))
    assert gone("GET", "/v1/catalogue").status == 200
    with world.fleet.engine("api").begin() as tx:
        assert keys.revoke(tx, "gone")
        assert not keys.revoke(tx, "gone")
    end = datetime.now(UTC) + timedelta(seconds=10)
    while {short("GET", "/v1/catalogue").status, gone("GET", "/v1/catalogue").status} != {401}:
        assert datetime.now(UTC) < end
    assert short("GET", "/v1/catalogue").data == gone("GET", "/v1/catalogue").data


def test_key_that_asks_too_often_is_told_when_to_come_again(
    client_of: Callable[..., Client], world: Life
) -> None:
    slow = client_of(per_second=3)
    answers = [slow("GET", "/v1/catalogue") for _ in range(8)]
    limited = [a for a in answers if a.status == 429]
    assert len([a for a in answers if a.status == 200]) in (3, 4)
    assert {a.code for a in limited} == {"too_many_requests"}
    assert all(int(a.headers["retry-after"]) >= 1 for a in limited)
    # A batch counts as many as it has orders; it is taken whole, and then waited for.
    big = client_of(per_second=3)
    batch = b"\n".join(json.dumps(order(f"l-{n}", customer="max")).encode() for n in range(30))
    assert big("POST", "/v1/orders:batch", batch).status == 200
    assert int(big("GET", "/v1/catalogue").headers["retry-after"]) > 5


def test_key_without_the_scope_is_told_so_and_uses_up_nothing(
    client_of: Callable[..., Client],
) -> None:
    narrow = client_of(per_second=1, scopes=[KeyScope.CATALOGUE_READ])
    assert {narrow("GET", "/v1/services").code for _ in range(10)} == {"scope_missing"}
    assert narrow("GET", "/v1/catalogue").status == 200


def test_what_is_no_request_is_a_problem_too(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as plug:
        plug.sendall(b"nonsense\r\n\r\n")
        head, _, said = b"".join(iter(lambda: plug.recv(4096), b"")).partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    document = json.loads(said)
    assert (document["status"], document["code"]) == (400, "malformed")


def test_unknown_paths_and_methods_are_problems_too(shop: Client) -> None:
    missing = shop("GET", "/v1/nothing")
    assert (missing.status, missing.code) == (404, "not_found")
    wrong = shop("DELETE", "/v1/orders/o-1")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["allow"]


def test_last_use_is_noted_once_a_minute(database: Database) -> None:
    engine = database.engine("api")
    ring = KeyRing(engine)
    key = ring.find(make_key(engine, "used"))
    assert key is not None
    assert not ring.is_to_note()
    assert ring.wait(key) == 0
    ring.note()
    first = database.value("SELECT last_used_at FROM api_keys")
    assert first is not None
    assert ring.wait(key) == 0
    assert not ring.is_to_note()
    ring.note()
    assert database.value("SELECT last_used_at FROM api_keys") == first


def test_rejected_documents_are_forgotten_where_there_is_no_intake(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors_module, "TIDY_SECONDS", 0.0)
    database.place({"key": "old"})
    database.run("UPDATE rejected_documents SET received_at = now() - interval '91 days'")
    database.place({"key": "new"})
    engines = database.engine("api"), database.engine("readonly")
    doors = Doors(*engines, SystemClock(), Realms(), keep_days=90)
    ends = time.monotonic() + 10
    while database.value("SELECT count(*) FROM rejected_documents") > 1:
        assert time.monotonic() < ends
        time.sleep(0.05)
    doors.stop()
    assert database.value("SELECT key FROM rejected_documents") == "new"


def test_nothing_kept_of_a_key_opens_anything(database: Database) -> None:
    made = make_key(database.engine("api"), "kept")
    secret = made.split("_", 2)[2]
    assert len(secret) * 6 >= 128
    for table in ("api_keys", "events"):
        kept = database.value(f"SELECT string_agg(t::text, ' ') FROM {table} AS t")
        assert secret not in kept
    with database.engine("readonly").connect() as tx, pytest.raises(Exception, match="denied"):
        tx.execute(text("SELECT hash FROM api_keys"))


class TestOnTheCommandLine:
    @pytest.fixture
    def cli(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", database.url)
        monkeypatch.setenv("AUTORENEW_REALMS", json.dumps({"partner": "shop"}))
        return lambda *words: CliRunner().invoke(main, ["keys", *words])

    def test_key_is_shown_once_listed_and_revoked(
        self, cli: Callable[..., Result], database: Database
    ) -> None:
        made = cli(
            "create", "--name", "web shop", "--realm", "shop", "--scope", "orders:write",
            "--scope", "orders:read", "--brand", "ovh", "--expires", "90d", "--by", "eve",
            "--because", "the new shop",
        )  # fmt: skip
        assert made.exit_code == 0, made.output
        key = made.stdout.strip()
        assert re.fullmatch(r"ark_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", key)
        listed = json.loads(cli("list", "--json").stdout)
        assert listed["prefix"] == key.split("_")[1]
        assert listed["name"] == "web shop"
        assert key.split("_", 2)[2] not in cli("list").stdout
        assert cli("revoke", "web shop").stdout.strip() == "web shop is revoked"
        assert "no change" in cli("revoke", listed["prefix"]).stdout
        told = database.all("SELECT name, detail->>'by' AS by FROM events ORDER BY id")
        assert [(e.name, e.by) for e in told][:1] == [("key.created", "eve")]
        assert told[1].name == "key.revoked"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--scope", "orders:read"), "name a --realm"),
            (("--realm", "shop", "--scope", "ops:read"), "not for a key of one"),
            (("--all-realms", "--scope", "orders:write"), "name the realm"),
            (("--all-realms", "--realm", "shop", "--scope", "orders:read"), "--all-realms, or"),
            (("--upstream", "partner", "--realm", "x", "--scope", "orders:read"), "of the realm"),
            (("--realm", "shop", "--scope", "all"), "orders:write"),
            (("--realm", "shop", "--scope", "orders:read", "--expires", "2020-01-01"), "passed"),
            (("--realm", "shop", "--scope", "orders:read", "--expires", "soon"), "neither a date"),
            (("--all-realms", "--scope", "ops:read", "--brand", "ovh"), "cannot be narrowed"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, cli: Callable[..., Result], words: tuple[str, ...], said: str
    ) -> None:
        result = cli("create", "--name", "x", *words)
        assert result.exit_code == 2
        assert said in result.output

    def test_name_is_taken_once(self, cli: Callable[..., Result]) -> None:
        words = ("create", "--name", "x", "--realm", "shop", "--scope", "orders:read")
        assert cli(*words).exit_code == 0
        assert "already" in cli(*words).output
        assert "no key 'y'" in cli("revoke", "y").output
