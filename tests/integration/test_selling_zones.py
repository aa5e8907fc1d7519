"""Zones sold by a whole fleet: ordered, suspended, resumed, ended, and where the API's key is."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from monitoring.audit import audit
from tests.conftest import Database
from tests.integration.test_billing import assert_clean, run
from tests.integration.test_provisioning import confirmed, want
from tests.support.given import line, order
from tests.support.powerdns import KEY, NAMESERVERS, PowerDns, options


@pytest.fixture
def server(tmp_path: Any) -> Iterator[PowerDns]:
    server = PowerDns(tmp_path / "powerdns")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def selling(embedded: Callable[..., Any], server: PowerDns) -> Callable[..., Any]:
    """Starts a fleet whose plan ``site`` is a zone."""

    def start(**changes: Any) -> Any:
        web = {"kind": "powerdns"} | options(server, **changes)
        others = dict.fromkeys(("dedicated", "cloud", "telecom"), "instant:")
        return embedded(drivers={"web": web}, driver_urls=others, call_seconds=5)

    return start


def everything_written(database: Database) -> str:
    """Every row of every table, as text."""
    tables = database.all(
        "SELECT quote_ident(table_name) AS name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    return "\n".join(
        str(row)
        for table in tables
        for row in database.all(f"SELECT t::text FROM {table.name} AS t")
    )


def test_zone_is_delivered_suspended_resumed_and_ended(
    selling: Callable[..., Any], database: Database, server: PowerDns
) -> None:
    fleet = selling()
    run(fleet, database, order("k-1", line("site", domain="shop.example")))
    service = database.all("SELECT id, state, resource_id, details FROM services")[0]
    assert (service.state, service.resource_id) == ("active", "shop.example")
    assert service.details == {"zone": "shop.example", "nameservers": ", ".join(NAMESERVERS)}
    assert server.ask("shop.example") == ["192.0.2.20"]

    for desired, answer in (
        ("suspended", ["192.0.2.99"]), ("active", ["192.0.2.20"]), ("absent", "REFUSED"),
    ):  # fmt: skip
        want(database, desired)
        fleet.wait_until_idle(20)
        assert confirmed(database) == {desired}
        assert server.ask("shop.example") == answer
    assert server.zones() == {"autorenew.invalid": "autorenew"}


def test_books_of_the_fleet_and_the_server_agree(
    selling: Callable[..., Any], database: Database, server: PowerDns
) -> None:
    fleet = selling()
    run(fleet, database, *(order(f"k-{n}", line("site", domain=f"s{n}.example")) for n in range(3)))
    assert_clean(fleet, database)
    server.api("DELETE", "/zones/s1.example.")
    with database.owner.connect() as tx:
        broken = [finding for finding in audit(tx, fleet.books()) if finding.broken]
    gone = database.value("SELECT id FROM services WHERE resource_id = 's1.example'")
    assert [(finding.code, finding.ids) for finding in broken] == [("far.resources", [str(gone)])]


def test_second_order_for_a_domain_waits_for_a_person(
    selling: Callable[..., Any], database: Database, server: PowerDns
) -> None:
    fleet = selling()
    run(fleet, database, order("k-1", line("site", domain="shop.example")))
    run(fleet, database, order("k-2", line("site", domain="shop.example"), customer="bob"))
    failed = database.all("SELECT reason, error FROM tasks WHERE state = 'failed'")
    assert [reason for reason, _ in failed] == ["driver_refused"]
    assert "zone_taken" in failed[0].error
    assert len(server.zones()) == 2  # the domain, and the registry


@pytest.mark.parametrize(
    ("key", "state"), [(KEY, "active"), ("another-key-that-is-wrong-81", "delivering")]
)
def test_key_of_the_api_is_in_no_table_and_no_log(
    selling: Callable[..., Any],
    database: Database,
    caplog: pytest.LogCaptureFixture,
    key: str,
    state: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    fleet = selling(token=key)
    database.place(order("k-1", line("site", domain="shop.example")))
    fleet.wait_until_idle(30)

    assert database.value("SELECT state FROM services") == state
    failed = database.all("SELECT reason, error FROM tasks WHERE state = 'failed'")
    assert [reason for reason, _ in failed] == ["driver_permanent"] * (state == "delivering")
    written = everything_written(database) + caplog.text
    assert "shop.example" in written
    assert key not in written
