"""A restored backup: the gateway has charges that our books lack. Nothing happens automatically,
the missing charges are found and booked, and no customer pays twice."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from autorenew.local.embedded import Embedded
from producers.control import lanes
from producers.ledger import GUARDED_LANES, RENEWAL_LANE
from schemas.catalogue.store import CatalogueCache
from schemas.values import Money, Universe
from simulator.server import Running
from tests.conftest import Database
from tests.integration.test_billing import assert_clean
from tests.integration.test_renewals import DECLINE
from tests.support import given
from tests.support.given import line
from tests.support.life import BRANDS, Life
from workers.billing.charges.reconcile import Difference, compare
from workers.billing.gateways.http import HttpGateway
from workers.billing.gateways.instant import InstantGateway
from workers.billing.gateways.port import Charge
from workers.billing.payment_requests import draft
from workers.conformance.waiting import Waiting
from workers.outside.books import Books
from workers.outside.http import HttpSettings

Start = Callable[[Database], Life]


@pytest.fixture
def start(
    postgres: Any, simulator: Running, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Starts fleets on databases, all with the same outside world."""
    with ExitStack() as stack:

        def begin(database: Database) -> Life:
            fleet = Embedded(
                tmp_path,
                postgres=postgres,
                database=database.name,
                ahead=timedelta(),
                gateway_url=f"{simulator.url}/gateway",
                driver_urls={u.value: f"{simulator.url}/infrastructure/{u}" for u in Universe},
                silence_seconds=26 * 3600.0,
                retry_base_seconds=0.05,
            )
            return Life(stack.enter_context(fleet), database)

        yield begin


@pytest.fixture
def restored(
    database: Database,
    postgres: Any,
    simulator: Running,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Life]]:
    """Lets time pass, makes a backup, and lets more days pass; returns the life that continues from
    the backup, at the same moment and with the same outside world."""
    copy = Database(postgres, f"{database.name}_backup")

    def live(*lines: Any, before: float, days: float, after: Any = None) -> Life:
        world = start(database)
        world.roll_out(*BRANDS)
        first = world.order(*lines)
        world.pass_until(first, before)
        stop(world)
        postgres.create_database(copy.name, database.name)
        # A fleet that goes on, on a database that lives on its virtual clock already.
        monkeypatch.setattr("schemas.virtual_clock.start", lambda *_: None)
        world = start(database)
        world.pass_days(days)
        if after is not None:
            after(world)
        ahead = database.value("SELECT ahead FROM virtual_clock")
        stop(world)
        copy.run("UPDATE virtual_clock SET ahead = :ahead", ahead=ahead)
        world = start(copy)
        world.fleet.settle(30)
        return world

    yield live
    copy.close()
    postgres.drop_database(copy.name)


def stop(world: Life) -> None:
    world.fleet.stop()
    world.database.close()


@pytest.fixture
def reconcile(simulator: Running, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command as the role ``billing``."""
    monkeypatch.setenv("AUTORENEW_GATEWAY_URL", f"{simulator.url}/gateway")
    monkeypatch.setenv("AUTORENEW_CLOCK", "virtual")

    def run(world: Life, *words: str) -> Result:
        url = world.fleet.engine("billing").url.render_as_string(hide_password=False)
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.replace("+psycopg", ""))
        return CliRunner().invoke(main, ["reconcile", "gateway", *words])

    return run


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(row) for row in result.stdout.splitlines()]


def resume(world: Life, *which: str) -> None:
    which = which or GUARDED_LANES
    with world.fleet.owner.begin() as tx:
        for lane in which:
            lanes.resume(tx, lane, guard=True)
    world.fleet.settle(30)


def counts(world: Life) -> tuple[int, ...]:
    tables = "charges", "invoices", "credit_notes"
    return tuple(world.database.value(f"SELECT count(*) FROM {table}") for table in tables)


def book(simulator: Running) -> list[Any]:
    return list(simulator.simulator.store.book(0, 1000))


def clean(world: Life, simulator: Running) -> None:
    assert_clean(world.fleet, world.database)


def test_restored_fleet_charges_and_ends_nothing_by_itself(
    restored: Any, simulator: Running
) -> None:
    world = restored(line("site", quantity=2), line("vm"), before=-5, days=3)

    paused = world.database.all("SELECT lane, reason FROM lane_pauses ORDER BY lane")
    assert [lane for lane, _ in paused] == sorted(GUARDED_LANES)
    assert "restored backup" in paused[0].reason
    world.pass_days(20)  # a person has other things to do
    assert counts(world) == (1, 1, 0)  # of the order
    assert {s.state for s in world.services()} == {"active"}
    assert {s.paid_periods for s in world.services()} == {1}
    assert len(book(simulator)) == 2
    assert world.database.value("SELECT count(*) FROM tasks WHERE name = 'request'") == 1


def test_charge_missing_in_our_books_is_shown_booked_and_not_repeated(
    restored: Any, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    world = restored(line("site", quantity=2), line("vm"), before=-5, days=3)
    taken = book(simulator)

    shown = reconcile(world, "--json")
    assert shown.exit_code == 1
    (forgotten,) = rows(shown)
    assert forgotten["difference"] == "forgotten"
    assert (forgotten["kind"], forgotten["key"]) == ("charge", taken[-1]["key"])
    assert (forgotten["customer"], forgotten["attempt"]) == ("alice", 1)
    assert forgotten["amount"] == "136.33 EUR"  # 20 % of 3 x 37.87
    assert counts(world) == (1, 1, 0)  # it only looked

    header, columns, row = reconcile(world).stdout.splitlines()  # for people
    assert header == "differences between our books and the gateway's"
    assert columns.split()[:4] == ["difference", "kind", "amount", "customer"]
    assert row.split()[:5] == ["forgotten", "charge", "136.33", "EUR", "alice"]

    booked = reconcile(world, "--book", "--json")
    assert booked.exit_code == 0
    assert [row["difference"] for row in rows(booked)] == ["booked"]
    assert reconcile(world, "--book").stdout.endswith(": none\n")  # once
    world.fleet.settle(30)
    assert {s.paid_periods for s in world.services()} == {2}
    assert counts(world) == (2, 2, 0)
    charged = world.database.all("SELECT state, reason FROM charges WHERE reason IS NOT NULL")
    assert charged == [("succeeded", "reconciled")]

    resume(world)
    again = reconcile(world)
    assert (again.exit_code, again.stdout.strip()) == (
        0,
        "differences between our books and the gateway's: none",
    )
    assert book(simulator) == taken
    assert world.fleet.tasks() == {}
    clean(world, simulator)


def test_unreconciled_fleet_charges_nothing_twice(restored: Any, simulator: Running) -> None:
    world = restored(line("site", quantity=2), before=-5, days=3)
    taken = book(simulator)

    resume(world)  # somebody did not read the manual

    assert {s.paid_periods for s in world.services()} == {2}
    assert book(simulator) == taken
    clean(world, simulator)


def test_charge_is_found_after_the_old_expiry_too(
    restored: Any, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    world = restored(line("site", quantity=2), before=-5, days=9)
    taken = book(simulator)

    assert reconcile(world, "--book").exit_code == 0
    resume(world)

    assert {(s.state, s.paid_periods) for s in world.services()} == {("active", 2)}
    assert book(simulator) == taken
    clean(world, simulator)


def test_charge_of_a_release_that_named_requests_without_a_day_is_booked(
    restored: Any, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    with pytest.MonkeyPatch.context() as former:
        former.setattr("workers.billing.payment_requests.draft.id_of", draft.former_id_of)
        world = restored(line("site", quantity=2), before=-5, days=3)
    taken = book(simulator)

    booked = reconcile(world, "--book", "--json")
    assert [row["difference"] for row in rows(booked)] == ["booked"]
    resume(world)

    assert {s.paid_periods for s in world.services()} == {2}
    assert book(simulator) == taken
    clean(world, simulator)


def test_early_renewal_after_the_backup_is_booked(
    restored: Any, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    world = restored(line(), before=-20, days=0.5, after=lambda world: world.renew())
    first, taken = world.service(), book(simulator)
    assert len(taken) == 2

    booked = reconcile(world, "--book", "--json")
    assert [row["difference"] for row in rows(booked)] == ["booked"]
    resume(world)
    world.pass_until(first, -2)

    assert book(simulator) == taken
    clean(world, simulator)


def test_renewals_paid_one_by_one_after_the_backup_are_not_charged_together_again(
    restored: Any, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    """One of two was renewed by a click, so each was paid alone; here they fall due together."""

    def click(world: Life) -> None:
        world.renew(world.services()[0])
        world.pass_days(3)

    world = restored(line(quantity=2), before=-5, days=0.5, after=click)
    taken = book(simulator)
    assert len(taken) == 3

    reconcile(world, "--book")
    resume(world)

    assert book(simulator) == taken
    clean(world, simulator)


def test_two_lost_months_are_found_one_after_the_other(
    restored: Any, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    def second(world: Life) -> None:
        world.pass_until(world.service(), -2)

    world = restored(line(), before=-5, days=3, after=second)
    taken = book(simulator)
    assert len(taken) == 3

    shown = [row["difference"] for row in rows(reconcile(world, "--json"))]
    assert shown == ["forgotten", "unknown"]
    assert reconcile(world, "--book").exit_code == 1
    world.fleet.settle(30)
    assert reconcile(world, "--book").exit_code == 0
    resume(world)

    assert world.service().paid_periods == 3
    assert book(simulator) == taken
    clean(world, simulator)


def test_charge_under_way_at_the_time_of_the_backup_is_booked(
    restored: Any, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    world = restored(line(), before=-5, days=3)
    taken = book(simulator)
    resume(world, RENEWAL_LANE)
    world.database.run(
        "INSERT INTO charges (key, request_id, attempt, amount, currency, state)"
        " SELECT CAST(:key AS uuid), id, 1, total, currency, 'started' FROM payment_requests"
        " WHERE state = 'open'",
        key=taken[-1]["key"],
    )

    assert [row["difference"] for row in rows(reconcile(world, "--json"))] == ["forgotten"]
    assert reconcile(world, "--book").exit_code == 0
    resume(world)

    assert world.service().paid_periods == 2
    assert book(simulator) == taken
    clean(world, simulator)


def test_charge_of_an_order_placed_after_the_backup_is_shown_as_unknown(
    restored: Any, reconcile: Callable[..., Result]
) -> None:
    def order(world: Life) -> None:
        world.send(given.order("k-late", customer="bob"))

    world = restored(line(), before=-10, days=1, after=order)

    shown = reconcile(world, "--book", "--json")

    assert shown.exit_code == 1
    (row,) = rows(shown)
    assert (row["difference"], row["customer"], row["request"]) == ("unknown", "bob", None)


@pytest.fixture
def settled(life: Any, simulator: Running) -> Life:
    """A fleet with one delivered order, whose books agree."""
    world: Life = life(gateway_url=f"{simulator.url}/gateway")
    world.order()
    return world


def differences(world: Life, gateway: Any) -> list[Any]:
    books = Books({"default": gateway}, {}).money()
    with world.fleet.engine("billing").connect() as tx:
        found = compare(tx, books, CatalogueCache().current(tx), world.fleet.clock.now())
    return [(f.difference, f.kind, f.key, str(f.amount), f.customer) for f in found]


def test_books_that_agree_show_no_difference_and_an_unknown_charge_shows_one(
    settled: Life, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    gateway = HttpGateway("default", HttpSettings(url=f"{simulator.url}/gateway"))
    assert differences(settled, gateway) == []
    assert reconcile(settled).exit_code == 0

    key = str(uuid.uuid4())
    with Waiting(gateway) as waiting:
        waiting.perform(Charge(key, Money(100, "EUR"), "tok", "bob"))

    assert differences(settled, gateway) == [(Difference.UNKNOWN, "charge", key, "1.00 EUR", "bob")]
    booked = reconcile(settled, "--book", "--json")
    assert booked.exit_code == 1
    assert [row["difference"] for row in rows(booked)] == ["unknown"]


def test_charge_missing_at_the_gateway_is_shown(settled: Life) -> None:
    key = str(settled.database.value("SELECT key FROM charges"))
    assert differences(settled, InstantGateway()) == [
        (Difference.MISSING, "charge", key, "45.44 EUR", None)
    ]


def test_a_contradiction_is_shown_and_never_booked(
    settled: Life, simulator: Running, reconcile: Callable[..., Result]
) -> None:
    """The gateway declined a charge, and took the money all the same."""
    simulator.simulator.faults.add(DECLINE)
    settled.send(given.order("k-2", customer="bob"))
    key = str(
        settled.database.value("SELECT key FROM charges WHERE state = 'declined' AND attempt = 1")
    )
    entry = {"key": key, "amount": 4544, "currency": "EUR", "customer": "bob"}
    simulator.simulator.store.take(entry)

    booked = reconcile(settled, "--book", "--json")

    assert booked.exit_code == 1
    (row,) = rows(booked)
    assert (row["difference"], row["key"], row["attempt"]) == ("contradicted", key, 1)
    assert counts(settled)[1] == 1


def test_unreadable_gateway_book_is_a_one_line_error(
    settled: Life, reconcile: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTORENEW_CALL_SECONDS", "0.2")
    monkeypatch.setenv("AUTORENEW_GATEWAY_URL", "http://127.0.0.1:1/gateway")

    result = reconcile(settled)

    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "cannot read the book: gateway default: cannot connect" in result.stderr
