"""When the database is away, or full: 503, when to come again, and nothing half done."""

from collections.abc import Iterator

import pytest

from producers.api.app import build
from producers.api.doors import Doors
from producers.intake.realms import Realms
from producers.web.serving import WebServer
from schemas.clock import SystemClock
from schemas.database import connect
from tests.conftest import Database
from tests.support.api import Client, make_key
from tests.support.given import body, order
from tests.support.silence import Silence


@pytest.fixture
def between(database: Database) -> Iterator[Silence]:
    port = database.engine("api").url.port
    assert port is not None
    silence = Silence(port)
    yield silence
    silence.close()


@pytest.fixture
def client(database: Database, between: Silence) -> Iterator[Client]:
    """An API that reaches its database through something that can be cut."""
    engines = []
    for role in ("api", "readonly"):
        url = database.engine(role).url.set(
            drivername="postgresql", host="127.0.0.1", port=between.port
        )
        engines.append(connect(url.render_as_string(hide_password=False)))
    doors = Doors(engines[0], engines[1], SystemClock(), Realms())
    with WebServer(build(doors), host="127.0.0.1", port=0, name="api", grace=1) as server:
        client = Client(server.url, make_key(database.engine("api"), "shop"))
        yield client
        client.close()
    doors.stop()
    for engine in engines:
        engine.dispose()


def test_database_that_is_away_is_told_as_503(client: Client, between: Silence) -> None:
    assert client("POST", "/v1/orders", order("a-1")).status == 202
    between.close()
    asked = [
        ("POST", "/v1/orders", body(order("a-2"))),
        ("POST", "/v1/orders:batch", body(order("a-3"))),
        ("GET", "/v1/orders/a-1", None),
        ("GET", "/v1/services", None),
        ("PATCH", "/v1/customers/alice", b'{"name":"X"}'),
        ("GET", "/readyz", None),
    ]
    for method, path, sent in asked:
        answer = client(method, path, sent)
        assert answer.status == 503, path
        assert int(answer.headers["retry-after"]) >= 1
    assert client("GET", "/healthz").status == 200


def test_full_disk_leaves_nothing_behind_and_the_same_order_is_taken_later(
    client: Client, database: Database
) -> None:
    database.run("""
        CREATE FUNCTION be_full() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$
    """)
    database.run("CREATE TRIGGER full_disk BEFORE INSERT ON tasks EXECUTE FUNCTION be_full()")
    for method, path in [("POST", "/v1/orders"), ("POST", "/v1/orders:batch")]:
        answer = client(method, path, order("d-1"))
        assert (answer.status, answer.code) == (503, "unavailable")
        assert answer.headers["retry-after"] == "5"
    for table in ("orders", "customers", "tasks", "payment_methods"):
        assert database.value(f"SELECT count(*) FROM {table}") == 0
    database.run("DROP TRIGGER full_disk ON tasks")
    again = client("POST", "/v1/orders", order("d-1"))
    assert again.status == 202
    assert "idempotency-replayed" not in again.headers
    assert database.value("SELECT count(*) FROM orders") == 1


def test_command_whose_answer_was_not_kept_is_not_done(client: Client, database: Database) -> None:
    assert client("POST", "/v1/orders", order("e-1")).status == 202
    database.run("""
        CREATE FUNCTION be_full() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$
    """)
    database.run("CREATE TRIGGER full_disk BEFORE UPDATE ON api_answers EXECUTE FUNCTION be_full()")
    agreed = {"contracts": [{"contract": "terms", "version": 2}]}
    database.run("DELETE FROM agreements")
    path = "/v1/customers/alice/agreements"
    assert client("POST", path, agreed, Idempotency_Key="x").status == 503
    assert database.value("SELECT count(*) FROM agreements") == 0
    assert database.value("SELECT count(*) FROM api_answers") == 0
    database.run("DROP TRIGGER full_disk ON api_answers")
    assert client("POST", path, agreed, Idempotency_Key="x").status == 200
    assert database.value("SELECT count(*) FROM agreements") == 1


def test_defect_is_told_without_its_words(client: Client, database: Database) -> None:
    database.run("""
        CREATE FUNCTION be_odd() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'secret words' USING ERRCODE = 'P0001'; END $$
    """)
    database.run("CREATE TRIGGER odd BEFORE INSERT ON orders EXECUTE FUNCTION be_odd()")
    answer = client("POST", "/v1/orders", order("f-1"))
    assert (answer.status, answer.code) == (500, "internal")
    assert b"secret" not in answer.data
