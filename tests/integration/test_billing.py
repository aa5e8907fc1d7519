"""Money is taken once, invoiced when it is taken, and refunded if nothing was delivered for it."""

import random
import threading
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from monitoring.audit import audit
from producers import ledger
from producers.control import failed
from producers.steps import GATEWAY, REFUND
from tests.conftest import Database
from tests.support.given import line, order, wait_until
from tests.support.operators import give_up
from workers.billing.charges.numbering import take_numbers
from workers.billing.gateways.http import HttpGateway
from workers.billing.gateways.port import Charge, GatewayAnswer, GatewayState, Refund


def run(fleet: Any, database: Database, *documents: Any) -> None:
    """Place orders, wait until they have ended, and check that the books agree."""
    database.place(*documents)
    fleet.wait_until_idle(30)
    assert_clean(fleet, database)


def assert_clean(fleet: Any, database: Database) -> None:
    with database.owner.connect() as tx:
        findings = audit(tx, fleet.books())
    assert [(f.invariant, f.ids) for f in findings if f.broken] == []


def test_a_paid_order_has_the_invoice_of_the_guides_example(
    embedded: Any, database: Database
) -> None:
    """37.87 EUR net, FR, 20 %: tax 7.57, gross 45.44 (OVH API renewal guide)."""
    run(embedded(), database, order("k-1"))

    invoices = database.all("SELECT number, currency, net, tax, total, tax_mention FROM invoices")
    assert invoices == [(1, "EUR", 3787, 757, 4544, "VAT FR")]
    lines = database.all("SELECT period_number, net, tax_rate, tax FROM invoice_lines")
    assert [(n, net, float(rate), tax) for n, net, rate, tax in lines] == [(1, 3787, 20.0, 757)]
    charged = database.all("SELECT attempt, amount, state FROM charges")
    assert charged == [(1, 4544, "succeeded")]


def test_setup_and_first_period_are_lines_of_their_own_for_each_service(
    embedded: Any, database: Database
) -> None:
    run(embedded(), database, order("k-1", line("server", "P12M", quantity=2)))

    lines = database.all("SELECT service_id, period_number, net FROM invoice_lines ORDER BY 1, 2")
    assert len({service for service, _, _ in lines}) == 2
    assert [(n, net) for _, n, net in lines] == [(0, 1000), (1, 40000)] * 2


def test_a_customer_in_another_country_pays_that_countrys_tax(
    embedded: Any, database: Database
) -> None:
    abroad, business = order("k-1", customer="a"), order("k-2", customer="b")
    abroad["customer"]["country"] = "DE"
    business["customer"] |= {"country": "DE", "vat_number": "DE136695976"}

    run(embedded(), database, abroad, business)

    invoices = database.all(
        "SELECT customer_id, tax, tax_mention, vat_number FROM invoices ORDER BY customer_id"
    )
    assert invoices[0] == ("a", 720, "VAT DE", None)  # 19 % of 37.87
    assert invoices[1] == ("b", 0, "Reverse charge", "DE136695976")


def test_free_order_is_neither_charged_nor_invoiced(embedded: Any, database: Database) -> None:
    fleet = embedded()
    run(fleet, database, order("k-1", line("gift")))

    assert database.value("SELECT state FROM orders") == "delivered"
    assert database.value("SELECT count(*) FROM invoices") == 0
    assert fleet.simulator.simulator.store.book(0, 10) == []


def test_order_whose_every_charge_is_declined_is_cancelled_without_an_invoice(
    embedded: Any, database: Database
) -> None:
    run(
        embedded([{"fault": "decline", "customer": "poor"}]),
        database,
        order("k-1", customer="poor"),
        order("k-2"),
    )

    assert database.all("SELECT state, reason FROM orders ORDER BY key") == [
        ("cancelled", "payment_declined"),
        ("delivered", None),
    ]
    assert database.value("SELECT count(*) FROM invoices") == 1
    attempts = database.all("SELECT attempt, state FROM charges ORDER BY attempt")
    assert [a for a in attempts if a[1] == "declined"] == [
        (1, "declined"),
        (2, "declined"),
        (3, "declined"),
    ]
    states = database.all("SELECT state FROM payment_requests ORDER BY state")
    assert states == [("paid",), ("voided",)]
    assert database.all("SELECT state FROM services ORDER BY state") == [
        ("active",),
        ("cancelled",),
    ]


@pytest.mark.parametrize("fault", ["error", "hang_before", "hang_after", "late", "duplicate"])
def test_misbehaving_gateway_takes_the_money_once(
    embedded: Any, database: Database, fault: str
) -> None:
    rules = [{"fault": fault, "operation": "charge", "seconds": 1.5, "times": 2}]
    fleet = embedded(rules)

    run(fleet, database, *(order(f"k-{n}", customer=f"c-{n}") for n in range(5)))

    assert database.value("SELECT count(*) FROM orders WHERE state = 'delivered'") == 5
    book = fleet.simulator.simulator.store.book(0, 100)
    assert len(book) == 5
    assert database.value("SELECT count(*) FROM charges") == 5  # one key each, however often


def test_undeliverable_line_is_refunded_alone(embedded: Any, database: Database) -> None:
    fleet = embedded([{"fault": "refuse", "operation": "create", "plan": "vm"}])
    run(fleet, database, order("k-1", line("site"), line("vm", "P12M", quantity=2)))
    assert database.all("SELECT name, reason FROM tasks") == [("converge", "driver_refused")] * 2

    with database.engine("api").begin() as tx:
        for task in failed.list_failed(tx):
            give_up(tx, task.subject)
    fleet.wait_until_idle(30)

    assert_clean(fleet, database)
    assert database.value("SELECT state FROM orders") == "partly_delivered"
    notes = database.all("SELECT series, number, net, tax, total FROM credit_notes ORDER BY number")
    year = datetime.now(UTC).year
    assert notes == [(f"FR-{year}-C", n, 41000, 8200, 49200) for n in (1, 2)]
    assert database.all("SELECT amount, state FROM refunds") == [(49200, "succeeded")] * 2
    book = fleet.simulator.simulator.store.book(0, 100)
    assert [(e["kind"], e["amount"]) for e in book] == [
        ("charge", 4544 + 2 * 49200),
        ("refund", 49200),
        ("refund", 49200),
    ]


def test_credit_notes_of_parts_add_up_to_the_invoice(embedded: Any, database: Database) -> None:
    fleet = embedded([{"fault": "refuse", "operation": "create"}])
    run(fleet, database, order("k-1", line("site", quantity=3)))
    with database.engine("api").begin() as tx:
        for task in failed.list_failed(tx):
            give_up(tx, task.subject)
    fleet.wait_until_idle(30)

    assert_clean(fleet, database)
    # 3 x 37.87 at 20 % is 22.722; each line rounded it would be 22.71.
    assert database.value("SELECT tax FROM invoices") == 2272
    notes = database.all("SELECT net, tax FROM credit_notes")
    assert sorted(notes) == [(3787, 757), (3787, 757), (3787, 758)]


@pytest.mark.parametrize("fault", ["error", "hang_after", "late"])
def test_refund_in_doubt_is_made_once(embedded: Any, database: Database, fault: str) -> None:
    fleet = embedded(
        [
            {"fault": "refuse", "operation": "create"},
            {"fault": fault, "operation": "refund", "seconds": 1.5, "times": 2},
        ]
    )
    run(fleet, database, order("k-1"))
    with database.engine("api").begin() as tx:
        give_up(tx, failed.list_failed(tx)[0].subject)
    fleet.wait_until_idle(30)

    assert_clean(fleet, database)
    assert database.value("SELECT state FROM orders") == "cancelled"
    assert [e["kind"] for e in fleet.simulator.simulator.store.book(0, 9)] == ["charge", "refund"]


def test_refund_of_a_service_that_was_not_given_up_does_nothing(
    embedded: Any, database: Database
) -> None:
    fleet = embedded()
    run(fleet, database, order("k-1"))

    with database.engine("provisioning").begin() as tx:
        service = database.value("SELECT id FROM services")
        ledger.enqueue(tx, REFUND, [(service, GATEWAY)])
    fleet.wait_until_idle(30)

    assert database.value("SELECT count(*) FROM credit_notes") == 0
    assert_clean(fleet, database)


@pytest.mark.parametrize("fault", ["error", "hang_before"])
def test_an_order_whose_charge_never_arrived_can_be_given_up(
    embedded: Any, database: Database, fault: str
) -> None:
    """The gateway is away for longer than the policy waits; then a person cancels."""
    fleet = embedded([{"fault": fault, "operation": "charge", "times": 1000, "seconds": 1}])
    run(fleet, database, order("k-1"))
    (task,) = database.all("SELECT name, reason FROM tasks WHERE state = 'failed'")
    assert task == ("charge", "gateway_unknown")

    fleet.simulator.simulator.faults.clear()
    with database.engine("api").begin() as tx:
        (found,) = failed.list_failed(tx)
        assert found.order_key == "k-1"
        give_up(tx, found.subject)
    fleet.wait_until_idle(30)

    assert database.all("SELECT state, reason FROM orders") == [("cancelled", "given_up")]
    assert database.all("SELECT state, reason FROM charges") == [("declined", "not_found")]
    assert database.value("SELECT count(*) FROM tasks") == 0
    assert fleet.simulator.simulator.store.book(0, 9) == []
    assert_clean(fleet, database)


def test_failed_charge_may_be_retried(embedded: Any, database: Database) -> None:
    fleet = embedded([{"fault": "error", "operation": "charge", "times": 1000}])
    run(fleet, database, order("k-1"))
    fleet.simulator.simulator.faults.clear()

    with database.engine("api").begin() as tx:
        failed.retry(tx, failed.list_failed(tx)[:1])
    fleet.wait_until_idle(30)

    assert database.value("SELECT state FROM orders") == "delivered"
    assert database.value("SELECT count(*) FROM charges") == 1
    assert_clean(fleet, database)


def test_late_charge_of_a_cancelled_order_is_refunded(embedded: Any, database: Database) -> None:
    fleet = embedded([{"fault": "hang_after", "operation": "charge", "seconds": 2, "times": 1}])
    fleet.simulator.simulator.faults.add({"fault": "error", "operation": "charge", "times": 1000})
    database.run("INSERT INTO lane_pauses VALUES ('driver:web', 'test')")
    database.place(order("k-1"))
    wait_for_charge = "SELECT count(*) FROM charges WHERE state = 'unknown'"
    wait_until(lambda: database.value(wait_for_charge) == 1, "the charge is in doubt")
    database.run("UPDATE tasks SET state = 'failed', batched = false WHERE name = 'charge'")

    with database.engine("api").begin() as tx:
        give_up(tx, failed.list_failed(tx)[0].subject)
    database.run("DELETE FROM lane_pauses")
    fleet.wait_until_idle(30)

    assert_clean(fleet, database)
    assert database.all("SELECT state, reason FROM orders") == [("cancelled", "given_up")]
    kinds = [e["kind"] for e in fleet.simulator.simulator.store.book(0, 9)]
    assert kinds == ["charge", "refund"]
    assert database.value("SELECT count(*) FROM operations WHERE kind = 'create'") == 0


def test_invoice_numbers_have_no_gap_and_dates_never_go_back_under_concurrency(
    database: Database,
) -> None:
    days = [date(2026, 3, day) for day in (5, 3, 4, 9, 1)]
    found: list[Any] = []
    engine = database.engine("billing")

    def number(seed: int) -> None:
        for n in range(20):
            day = days[(seed + n) % 5]
            with engine.begin() as tx:
                numbers = take_numbers(tx, [("FR-2026", day), ("IE-2026", day), ("FR-2026", day)])
                if n % 4 == 3:
                    tx.rollback()  # a number is taken with its document, or not at all
                    continue
            found.extend((x.series, x.number, x.issued_on) for x in numbers)

    threads = [threading.Thread(target=number, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for series, count in (("FR-2026", 120), ("IE-2026", 60)):
        documents = sorted((n, day) for s, n, day in found if s == series)
        assert [n for n, _ in documents] == list(range(1, count + 1))
        assert [day for _, day in documents] == sorted(day for _, day in documents)


def test_series_are_opened_without_a_deadlock_at_the_turn_of_the_year(database: Database) -> None:
    engine, failures = database.engine("billing"), []
    # Each batch has documents of some series: some there already, some not, in any order.
    codes = [f"{country}-{year}" for country in ("DE", "FR", "IE", "PL") for year in range(8)]
    start = threading.Barrier(4)

    def number(seed: int) -> None:
        draw = random.Random(seed)
        for year in range(8):
            start.wait()
            for _ in range(6):
                of_year = [code for code in codes if code.endswith(f"-{year}")]
                wanted = [(code, date(2026, 1, 1)) for code in draw.sample(of_year, 2)]
                wanted += [(code, date(2026, 1, 1)) for code in draw.sample(codes, 2)]
                try:
                    with engine.begin() as tx:
                        take_numbers(tx, wanted)
                except OperationalError as error:
                    failures.append(str(error.orig))

    threads = [threading.Thread(target=number, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    taken = database.value("SELECT sum(last_number) FROM invoice_series")
    assert taken == 4 * 8 * 6 * 4


def test_a_second_successful_charge_of_a_request_is_refused_by_the_database(
    embedded: Any, database: Database
) -> None:
    run(embedded(), database, order("k-1"))
    twice = text(
        "INSERT INTO charges (key, request_id, attempt, amount, currency, state)"
        " SELECT :key, request_id, 2, amount, currency, 'succeeded' FROM charges"
    )

    with pytest.raises(IntegrityError), database.owner.begin() as tx:
        tx.execute(twice, {"key": uuid.uuid4()})


def test_answers_of_a_gateway_of_another_package_are_written_down_within_bounds(
    embedded: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, busy = HttpGateway.perform, iter([True])

    async def perform(self: HttpGateway, operation: Charge | Refund) -> GatewayAnswer:
        said = "\x00\x1b[31m" + "x" * 5000
        if next(busy, False):
            return GatewayAnswer(GatewayState.DECLINED, reason=said, words=said)
        answer = await real(self, operation)
        return replace(answer, reference=f"{answer.reference}\x00")

    monkeypatch.setattr(HttpGateway, "perform", perform)
    database.place(order("k-1", line("vm")))
    embedded().wait_until_idle(30)

    declined, paid = database.all("SELECT state, reason, reference FROM charges ORDER BY attempt")
    assert (declined.state, declined.reason) == ("declined", "[31m" + "x" * 96)
    assert paid.state == "succeeded"
    assert paid.reference.isprintable()
