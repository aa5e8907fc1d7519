"""What keys that are narrowed to brands are told, where a route could say more than it means to."""

import time
from collections.abc import Callable, Iterator

import pytest

from producers.api.app import build
from producers.api.doors import Doors
from producers.intake.realms import Realms
from producers.web.serving import WebServer
from schemas.clock import SystemClock
from schemas.database import connect
from tests.conftest import Database
from tests.support.api import Client, make_key
from tests.support.given import line, order
from tests.support.life import Life
from tests.support.silence import Silence


def test_timeline_of_a_service_leaves_out_payments_with_something_of_another_brand(
    client_of: Callable[..., Client], shop: Client, world: Life
) -> None:
    narrow = client_of(brands=["kimsufi"])
    for key, lines in (("t-1", [line("server")]), ("t-2", [line("server"), line("site")])):
        document = order(key, *lines)
        document["customer"] |= {"id": "tom"}
        assert shop("POST", "/v1/orders?wait=30", document).status == 200
    # As those of renewals have, which take a year.
    world.database.run("""
        INSERT INTO events (subject, name, detail)
        SELECT id, 'charge.succeeded', '{"amount": 1}' FROM payment_requests
    """)
    told = {}
    for one in narrow("GET", "/v1/services?customer=tom").json["items"]:
        service = narrow("GET", f"/v1/services/{one['id']}").json
        told[service["order_key"]] = {event["about"] for event in service["timeline"]}
    assert told == {"t-1": {"service", "payment"}, "t-2": {"service"}}
    whole = shop("GET", "/v1/orders/t-2").json["services"][0]["id"]
    timeline = shop("GET", f"/v1/services/{whole}").json["timeline"]
    assert {event["about"] for event in timeline} == {"service", "payment"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/services?customer=a%00b", 422), ("/v1/services?plan=a%00b", 422),
        ("/v1/forecast?brand=a%00b", 422), ("/v1/orders/x?upstream=a%00b", 422),
        ("/v1/catalogue?brand=a%00b", 422), ("/v1/invoices/FR%00-1", 404),
        ("/v1/credit-notes/FR%00-1", 404), ("/v1/customers/a%00b", 422),
    ],
)  # fmt: skip
def test_text_that_the_database_cannot_have_is_no_defect(
    ops: Client, path: str, status: int
) -> None:
    assert ops("GET", path).status == status


@pytest.fixture
def between(database: Database) -> Iterator[Silence]:
    """What the databases that are read are reached through."""
    port = database.engine("api").url.port
    assert port is not None
    silence = Silence(port)
    yield silence
    silence.close()


@pytest.fixture
def still(database: Database, between: Silence) -> Iterator[str]:
    """The URL of an API without any worker: orders stay as they are."""
    url = database.engine("readonly").url.set(
        drivername="postgresql", host="127.0.0.1", port=between.port
    )
    reading = connect(url.render_as_string(hide_password=False))
    doors = Doors(database.engine("api"), reading, SystemClock(), Realms())
    with WebServer(build(doors), host="127.0.0.1", port=0, name="api", grace=1) as server:
        yield server.url
    doors.stop()
    reading.dispose()


def test_waiting_for_what_a_key_does_not_see_tells_no_more_than_for_nothing(
    still: str, database: Database
) -> None:
    whole = Client(still, make_key(database.engine("api"), "whole"))
    narrow = Client(still, make_key(database.engine("api"), "narrow", brands=["kimsufi"]))
    assert whole("POST", "/v1/orders", order("w-1", line("site"))).status == 202
    started = time.monotonic()
    theirs, nothing = narrow("GET", "/v1/orders/w-1?wait=5"), narrow("GET", "/v1/orders/w-2?wait=5")
    assert theirs.data == nothing.data
    assert theirs.status == 404
    assert time.monotonic() - started < 4.0
    for client in (whole, narrow):
        client.close()


def test_order_that_was_taken_is_said_so_though_nothing_can_be_read_of_it(
    still: str, database: Database, between: Silence
) -> None:
    client = Client(still, make_key(database.engine("api"), "shop"))
    between.close()
    answer = client("POST", "/v1/orders?wait=1", order("w-3"))
    assert answer.status == 202, answer.data
    assert database.value("SELECT count(*) FROM orders WHERE key = 'w-3'") == 1
    client.close()
