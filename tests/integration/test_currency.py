"""A subsidiary gets another currency while services depend on it."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from producers.control import failed
from producers.renewals import next_steps
from producers.scheduler import scheduler as scheduler_module
from producers.scheduler.changes import Changes
from schemas.catalogue import changes
from schemas.catalogue.changes import CannotApply
from schemas.catalogue.store import CatalogueCache, save
from schemas.clock import local_date
from schemas.errors import AutorenewError, CatalogueError
from schemas.values import Money
from tests.integration.test_dearer import announced
from tests.integration.test_reminders import kinds, letters, plain
from tests.integration.test_renewals import accepts, declines
from tests.support.given import CATALOGUE, body, line, order, wait_until
from tests.support.moving import IN_FRANCS, in_francs, plan, to_francs
from tests.support.operators import give_up, pause, resume_all
from workers.reminders.remind import Announced, _announce

CURRENCY = {"currency": "CHF"}
TOLD = "45,44 €"
PLANNED = "SELECT count(*) FROM subsidiary_changes WHERE applied_at IS NULL"


def charged(world: Any) -> list[str]:
    """What renewals were charged, such as ``4544 EUR``, in order."""
    rows = world.database.all(
        "SELECT c.amount || ' ' || c.currency FROM charges AS c"
        " JOIN payment_requests AS r ON r.id = c.request_id"
        " WHERE r.order_id IS NULL AND c.state = 'succeeded' ORDER BY c.started_at"
    )
    return [amount for (amount,) in rows]


def requests(world: Any) -> list[tuple[str, str]]:
    """(state, currency) of the payment requests of renewals, in order."""
    return world.database.all(  # type: ignore[no-any-return]
        "SELECT state, currency FROM payment_requests WHERE order_id IS NULL ORDER BY created_at"
    )


def francs(world: Any, **when: Any) -> None:
    plan(world, CURRENCY, **when)
    world.fleet.settle(30)


def test_what_was_announced_in_the_former_currency_is_told_anew_and_charged_in_the_new_one(
    life: Any,
) -> None:
    world = life()
    first = world.order()
    # Given that it was announced in euros, twelve days before it expires
    world.pass_until(first, -12)
    assert TOLD in plain(letters(world)[-1])
    before = len(letters(world))

    # When its subsidiary pays in francs from now on
    francs(world)
    assert world.happened("renewal.converted") == [
        (
            "renewal.converted",
            {"announced": "45.44 EUR", "net_before": "37.87 EUR", "net": "40.00 CHF"},
        )
    ]
    world.clean()

    # Then the customer is told of the new amount the next morning,
    world.pass_until(first, -11.5)
    (mail,) = letters(world)[before:]
    assert "autre devise" in str(mail["Subject"])
    assert IN_FRANCS in plain(mail)
    assert TOLD not in plain(mail)
    world.clean()
    # and it is charged in francs, on the day it would have been.
    world.pass_until(first, -2.9)
    assert charged(world) == ["4800 CHF"]
    assert world.service().paid_periods == 2
    rows = world.database.all(
        "SELECT series, number, total, currency FROM invoices ORDER BY number"
    )
    assert [(total, currency) for *_, total, currency in rows] == [(4544, "EUR"), (4800, "CHF")]
    assert [number for _, number, *_ in rows] == [1, 2]
    assert len({series for series, *_ in rows}) == 1
    world.clean()


def test_a_customer_who_is_told_late_has_the_days_of_a_notice_before_the_charge(life: Any) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -4.5)

    francs(world)
    world.pass_until(first, -2.9)
    assert charged(world) == []
    told_at = world.database.value("SELECT raised_at FROM renewals")
    assert told_at is not None
    assert IN_FRANCS in plain(letters(world)[-1])

    world.pass_until(first, (told_at - first.expires_at) / timedelta(days=1) + 6.9)
    assert charged(world) == []
    world.pass_days(0.2)
    assert charged(world) == ["4800 CHF"]
    assert world.service().state == "active"
    world.clean()


def test_what_was_never_announced_is_simply_announced_in_the_new_currency(life: Any) -> None:
    world = life()
    first = world.order()

    francs(world)
    assert world.happened("renewal.converted") == []
    world.pass_until(first, -2.9)

    assert charged(world) == ["4800 CHF"]
    assert all(TOLD not in plain(mail) for mail in letters(world))
    assert "dearer-1" not in kinds(world)
    world.clean()


def test_an_open_request_is_withdrawn_and_its_customer_told_before_the_next_charge(
    life: Any,
) -> None:
    world = life()
    first = world.order(line(quantity=2))
    declines(world)
    world.pass_until(first, -2.5)
    assert requests(world) == [("open", "EUR")]
    accepts(world)

    francs(world)
    assert requests(world) == [("voided", "EUR")]
    assert len(world.happened("renewal.withdrawn")) == 2
    world.clean()
    world.pass_until(first, 4)
    assert charged(world) == []
    world.pass_until(first, 6.5)
    assert charged(world) == ["9600 CHF"]
    world.clean()


def test_a_customer_who_renews_by_hand_once_told_is_charged_the_new_amount_at_once(
    life: Any,
) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -12)
    francs(world)
    # A click on the link of an e-mail that named euros.
    assert world.renew().verdict == "accepted"
    assert charged(world) == []
    world.pass_until(first, -11.5)
    assert charged(world) == []

    assert world.renew().verdict == "accepted"

    assert charged(world) == ["4800 CHF"]
    world.clean()


def test_a_stopped_service_on_a_request_of_several_leaves_none_in_the_former_currency(
    life: Any,
) -> None:
    world = life()
    first = world.order(line(quantity=2))
    declines(world)
    world.pass_until(first, -2.5)
    accepts(world)
    # Given that the change is in force, and not carried over yet
    plan(world, CURRENCY)
    with world.fleet.engine("scheduler").begin() as tx:
        tx.execute(text("SELECT FROM recomputations FOR UPDATE"))
        world.click("stop", world.services()[0])
        world.fleet.settle(30)

        assert requests(world) == [("voided", "EUR")]
    world.fleet.settle(30)
    world.clean()


def in_doubt(world: Any) -> Any:
    """A service with a charge of 45.44 EUR of which nobody knows how it ended."""
    first = world.order()
    fault = {"target": "gateway", "operation": "charge", "fault": "error", "times": 99}
    world.fleet.simulator.simulator.faults.add(fault)
    world.pass_until(first, -2.9)
    states = "SELECT state FROM charges ORDER BY started_at DESC LIMIT 1"
    assert world.database.value(states) == "unknown"
    return first


def retry(world: Any) -> None:
    with world.fleet.engine("api").begin() as tx:
        failed.retry(tx, failed.list_failed(tx))
    world.fleet.settle(30)


def test_a_charge_under_way_in_the_former_currency_buys_the_period(life: Any) -> None:
    world = life()
    in_doubt(world)

    francs(world)
    world.clean()
    assert requests(world) == [("open", "EUR")]
    accepts(world)
    retry(world)

    assert charged(world) == ["4544 EUR"]
    assert world.service().paid_periods == 2
    world.clean()
    world.pass_days(31)
    assert charged(world) == ["4544 EUR", "4800 CHF"]
    world.clean()


def test_a_charge_under_way_that_is_declined_is_not_repeated_in_the_former_currency(
    life: Any,
) -> None:
    world = life()
    first = in_doubt(world)
    francs(world)
    accepts(world)
    declines(world)
    retry(world)

    assert requests(world) == [("voided", "EUR")]
    accepts(world)
    world.clean()
    world.pass_until(first, 8)
    assert charged(world) == ["4800 CHF"]
    world.clean()


@pytest.fixture
def two_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "RECOMPUTE_CHUNK", 2)


def test_between_pages_nothing_is_charged_in_the_wrong_currency(
    life: Any, two_a_page: None
) -> None:
    world = life()
    first = world.order(*[line() for _ in range(3)])
    for number in range(3):
        world.send(order(f"more-{number}", customer=f"c-{number}"))
    declines(world)
    world.pass_until(first, -2.5)
    accepts(world)
    plan(world, CURRENCY)

    # Given that all are asked to be charged again, whatever page has been turned by then
    for _ in range(6):
        with world.fleet.owner.begin() as tx:
            open_requests = (
                tx.execute(
                    text(
                        "SELECT id FROM payment_requests WHERE state = 'open' AND order_id IS NULL"
                    )
                )
                .scalars()
                .all()
            )
            tx.execute(
                text("SELECT enqueue_tasks('charge', :ids, array_fill(1, ARRAY[:n]),"
                     " '{billing}', '{gateway}', 0)"),
                {"ids": open_requests, "n": len(open_requests)},
            )  # fmt: skip
        world.fleet.wait_until_idle(30)
        assert charged(world) == []
        world.clean()
        world.fleet.scheduler.round()
    world.fleet.settle(30)
    assert world.database.value("SELECT count(*) FROM recomputations") == 0
    assert {state for state, currency in requests(world) if currency == "EUR"} == {"voided"}

    world.pass_until(first, 8)
    assert {amount.split()[1] for amount in charged(world)} == {"CHF"}
    assert {s.paid_periods for s in world.services()} == {2}
    world.clean()


def test_what_falls_due_before_its_page_is_decided_by_the_new_currency(
    life: Any, two_a_page: None
) -> None:
    world = life()
    first = world.order(line(quantity=5))
    world.pass_until(first, -3.1)
    plan(world, CURRENCY)

    # When the day of the charge comes while nobody turns pages
    with world.fleet.owner.begin() as tx:
        tx.execute(text("SELECT FROM recomputations FOR UPDATE"))
        world.fleet.leap(timedelta(days=0.2))
        world.fleet.settle(30)
        assert requests(world) == []
        assert len(world.happened("renewal.dearer")) == 5
    world.fleet.settle(30)

    assert "dearer-2" not in kinds(world)
    world.pass_until(first, 6)
    assert charged(world) == ["24000 CHF"]
    assert "dearer-2" not in kinds(world)
    world.clean()


def test_an_amount_whose_email_was_on_its_way_is_told_again(life: Any) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -12)
    francs(world)
    world.pass_until(first, -11.5)
    told = announced(world)
    # Given an e-mail that was written before, and is taken by the server now
    with world.fleet.engine("reminders").begin() as tx:
        row = Announced(first.id, 2, Money(4544, "EUR"), "EUR")
        now = world.fleet.clock.now()
        _announce(tx, [row], now=now)
        next_steps.decide_again(tx, [first.id], CatalogueCache().current(tx), now)
    assert announced(world) == [4544] != told

    world.pass_until(first, -10.4)

    assert announced(world) == [4800]
    assert "dearer-2" in kinds(world)
    world.clean()


def test_a_transaction_that_read_the_old_catalogue_ends_before_the_change_is_in_force(
    life: Any,
) -> None:
    world = life()
    world.order()
    engine = world.fleet.engine("billing")
    with engine.connect() as reader:
        reader.execute(text("SELECT version FROM catalogue_version"))
        plan(world, CURRENCY, now=False)
        changed = threading.Event()

        def round_() -> None:
            world.fleet.scheduler.round()
            changed.set()

        thread = threading.Thread(target=round_)
        thread.start()
        time.sleep(0.3)
        # Nobody sees the new one while it is being put in force.
        currencies = "SELECT definition->>'currency' FROM subsidiaries WHERE code = 'FR'"
        assert not changed.is_set()
        assert world.database.value(currencies) == "EUR"
        reader.rollback()
        thread.join(10)
    assert world.database.value(currencies) == "CHF"


def test_a_reader_that_does_not_end_puts_a_change_off_and_stops_nobody_for_long(
    life: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = life()
    world.order()
    plan(world, CURRENCY, now=False)
    with world.fleet.engine("readonly").connect() as reader:
        reader.execute(text("SELECT version FROM catalogue_version"))
        started = time.monotonic()
        world.fleet.scheduler.round()
        world.fleet.scheduler.round()
        assert 1.9 < time.monotonic() - started < 20
    assert [r.message for r in caplog.records if "cannot be changed yet" in r.message] == [
        "subsidiary FR cannot be changed yet:"
        " a transaction that has read the catalogue does not end, such as a backup"
    ]
    world.fleet.scheduler._changes._not_before = 0.0

    world.fleet.settle(30)

    assert world.database.value("SELECT count(*) FROM recomputations") == 0
    assert world.database.value("SELECT applied_at FROM subsidiary_changes") is not None


def test_a_planned_change_is_put_in_force_on_its_local_day(life: Any) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -20)
    change = plan(world, CURRENCY, days=2)
    load_the_old_one(world)

    in_force = "SELECT definition->>'currency' FROM subsidiaries WHERE code = 'FR'"
    midnight = world.database.value(
        "SELECT CAST(:day AS timestamp) AT TIME ZONE 'Europe/Paris'", day=change.since
    )
    world.fleet.pass_time(midnight - world.fleet.clock.now() - timedelta(minutes=1))
    assert world.database.value(in_force) == "EUR"
    load_the_old_one(world)
    world.fleet.pass_time(timedelta(minutes=2))
    assert world.database.value(in_force) == "CHF"
    with pytest.raises(CatalogueError, match="autorenew subsidiary change FR"):
        load_the_old_one(world)
    with world.fleet.owner.begin() as tx:
        save(tx, in_francs())
    world.clean()


def load_the_old_one(world: Any) -> None:
    with world.fleet.owner.begin() as tx:
        save(tx, CATALOGUE)


def accepted(world: Any, key: str = "k-2", *lines: Any) -> None:
    """An order that is accepted, and not priced while its lane is paused."""
    pause(world.database.engine("api"), "orders")
    (answer,) = world.fleet.intake.place("shop", "python", [body(order(key, *lines))])
    assert answer.verdict == "accepted"


def by_the_release_before(world: Any) -> None:
    """As if orders that are accepted had been by processes that keep no price with a line."""
    world.database.run("UPDATE order_lines SET setup = NULL, renewal = NULL, currency = NULL")


def test_an_order_is_charged_in_the_currency_it_was_accepted_in(life: Any) -> None:
    world = life()
    world.order()
    accepted(world)

    plan(world, CURRENCY)
    resume_all(world.database.engine("api"))
    world.fleet.settle(30)

    paid = world.database.all("SELECT total, currency FROM invoices")
    assert paid == [(4544, "EUR"), (4544, "EUR")]
    later = max(s.expires_at for s in world.services())
    world.fleet.pass_time(later - world.fleet.clock.now())
    assert charged(world) == ["9600 CHF"]
    world.clean()


def test_what_an_accepted_order_will_be_renewed_by_needs_a_price_too(life: Any) -> None:
    world = life()
    world.order()
    accepted(world, "k-2", line("vm"))
    day = world.fleet.clock.now().date() + timedelta(days=2)
    kept = {k: v for k, v in to_francs(day).prices.items() if k[0] == "site"}
    change = changes.Change("FR", day, CURRENCY, kept)

    with world.fleet.owner.begin() as tx, pytest.raises(CatalogueError, match="plan vm: no price"):
        changes.plan(tx, change, world.fleet.clock.now())


def test_a_change_waits_for_orders_that_are_accepted_without_a_price(life: Any) -> None:
    world = life()
    world.order()
    accepted(world)
    by_the_release_before(world)

    with pytest.raises(AutorenewError) as refused:
        plan(world, CURRENCY)
    assert refused.value.code == "orders_not_priced"
    plan(world, CURRENCY, now=False)
    world.fleet.scheduler.round()
    assert world.database.value(PLANNED)

    resume_all(world.database.engine("api"))
    wait_until(lambda: len(world.services()) == 2, "priced")
    world.fleet.scheduler._changes._not_before = 0.0
    world.fleet.settle(30)
    assert world.database.value(PLANNED) == 0
    # It was charged what it was accepted for.
    paid = world.database.all("SELECT total, currency FROM invoices")
    assert paid == [(4544, "EUR"), (4544, "EUR")]
    world.clean()


def test_an_order_that_is_priced_is_charged_in_its_currency(life: Any) -> None:
    world = life()
    world.order()
    pause(world.database.engine("api"), "gateway")
    world.fleet.intake.place("shop", "python", [body(order("k-2"))])
    wait_until(lambda: len(world.services()) == 2, "priced")
    plan(world, CURRENCY)
    resume_all(world.database.engine("api"))
    world.fleet.settle(30)

    assert world.database.all("SELECT total, currency FROM invoices") == [(4544, "EUR")] * 2
    later = max(s.expires_at for s in world.services())
    world.fleet.pass_time(later - world.fleet.clock.now())
    assert charged(world) == ["9600 CHF"]
    world.clean()


def test_a_refund_of_an_old_charge_is_in_the_currency_of_that_charge(life: Any) -> None:
    world = life([{"fault": "refuse", "operation": "create", "plan": "vm"}])
    world.send(order("k-1", line("site"), line("vm")))
    francs(world)
    with world.fleet.engine("api").begin() as tx:
        give_up(tx, failed.list_failed(tx)[0].subject, world.fleet.clock)
    world.fleet.settle(30)

    refunded = world.database.all("SELECT amount, currency, state FROM refunds")
    assert refunded == [(4545, "EUR", "succeeded")]
    assert world.database.all("SELECT total, currency FROM credit_notes") == [(4545, "EUR")]
    world.clean()


class TestWhatIsRefused:
    def test_prices_by_which_services_are_renewed_and_that_are_missing_are_listed(
        self, life: Any
    ) -> None:
        world = life()
        world.order(line("site"), line("vm"))
        # Given that one of them is not sold any more
        with world.fleet.owner.begin() as tx:
            rest = [p for p in CATALOGUE.plans.values() if p.code != "vm"]
            save(tx, CATALOGUE.__class__(CATALOGUE.subsidiaries.values(),
                                         CATALOGUE.contracts.values(), rest))  # fmt: skip
        today = world.fleet.clock.now().date() + timedelta(days=3)
        files = in_francs()
        change = to_francs(today, files)
        kept = {k: v for k, v in change.prices.items() if k[0] not in ("site", "vm")}

        with world.fleet.owner.begin() as tx, pytest.raises(CatalogueError) as refused:
            changes.plan(tx, changes.Change("FR", today, CURRENCY, kept), world.fleet.clock.now())

        assert [p.split(":")[0] for p in refused.value.problems] == ["plan site", "plan vm"]
        # What nobody has may be left out.
        kept = {k: v for k, v in change.prices.items() if k[0] in ("site", "vm")}
        with world.fleet.owner.begin() as tx:
            changes.plan(tx, changes.Change("FR", today, CURRENCY, kept), world.fleet.clock.now())
        with world.fleet.owner.connect() as tx:
            warned = list(changes.sold_without(tx))
        assert any("phone, P1M" in text for text in warned)
        assert not any("site, P1M" in text for text in warned)

    def test_a_plan_that_was_ordered_after_the_change_was_planned_puts_it_off(
        self, life: Any
    ) -> None:
        world = life()
        world.order()
        today = world.fleet.clock.now().date() + timedelta(days=1)
        prices = {k: v for k, v in to_francs(today).prices.items() if k[0] == "site"}
        with world.fleet.owner.begin() as tx:
            changes.plan(tx, changes.Change("FR", today, CURRENCY, prices), world.fleet.clock.now())
        accepted(world, "k-2", line("vm"))

        id_ = world.database.value("SELECT id FROM subsidiary_changes")
        with world.fleet.owner.begin() as tx, pytest.raises(CannotApply) as waiting:
            changes.apply(tx, id_)
        assert waiting.value.code == "prices_missing"
        with world.fleet.owner.begin() as tx:
            assert changes.withdraw(tx, "FR") == today
            assert changes.withdraw(tx, "FR") is None

    def test_a_second_change_waits_for_the_first_to_be_withdrawn(self, life: Any) -> None:
        world = life()
        plan(world, CURRENCY, days=3)
        with pytest.raises(CatalogueError, match="autorenew subsidiary withdraw FR"):
            plan(world, CURRENCY, days=4)

    def test_files_that_say_something_else_are_refused(self, life: Any) -> None:
        world = life()
        now = world.fleet.clock.now()
        files = in_francs(timezone="Europe/Zurich")
        today = local_date(now, "Europe/Paris")
        with world.fleet.owner.begin() as tx, pytest.raises(CatalogueError) as refused:
            changes.plan(tx, to_francs(today, files), now, files)
        assert refused.value.problems == [
            "subsidiary FR: timezone: Europe/Zurich in these files, not Europe/Paris"
        ]

    def test_a_day_that_has_passed_and_no_difference_are_refused(self, life: Any) -> None:
        world = life()
        now = world.fleet.clock.now()
        change = changes.Change("FR", now.date() - timedelta(days=2), {})
        with world.fleet.owner.begin() as tx, pytest.raises(CatalogueError) as refused:
            changes.plan(tx, change, now)
        assert len(refused.value.problems) == 2
        with world.fleet.owner.begin() as tx, pytest.raises(CatalogueError, match="no subsidiary"):
            changes.plan(tx, changes.Change("XX", now.date(), CURRENCY), now)


def test_what_a_change_concerns_is_counted(life: Any) -> None:
    world = life()
    first = world.order(line(quantity=2))
    declines(world)
    world.pass_until(first, -2.5)
    accepted(world)
    by_the_release_before(world)

    with world.fleet.owner.begin() as tx:
        day = world.fleet.clock.now().date() + timedelta(days=3)
        touched = changes.plan(tx, to_francs(day), world.fleet.clock.now())

    assert touched == changes.Touched(services=2, orders_not_priced=1, open_requests=1, announced=2)


def test_of_two_schedulers_one_puts_a_change_in_force_and_both_go_on(
    life: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -12)
    plan(world, CURRENCY, now=False)
    with world.fleet.owner.connect() as tx:
        due = changes.due(tx, world.fleet.clock.now())
    one, other = (Changes(world.fleet.engine("scheduler")) for _ in range(2))
    threads = [threading.Thread(target=c.put_in_force, args=(due,)) for c in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    world.fleet.settle(30)

    assert not [r for r in caplog.records if "cannot be changed" in r.message]
    assert world.database.value("SELECT version FROM catalogue_version") > 1
    assert world.database.value("SELECT count(*) FROM recomputations") == 0
    assert len(world.happened("renewal.converted")) == 1
    world.clean()
