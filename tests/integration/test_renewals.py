"""Services renew automatically: requested, charged, invoiced and extended, period after period."""

from datetime import timedelta
from typing import Any

from monitoring.forecast import By, forecast
from schemas.catalogue import Catalogue, Plan
from schemas.catalogue.store import save
from schemas.values import Money, Period, derived_id
from tests.support import given
from tests.support.given import line
from tests.support.operators import resume_all

DECLINE = {"target": "gateway", "operation": "charge", "fault": "decline"}


def declines(world: Any) -> None:
    world.fleet.simulator.simulator.faults.add(DECLINE)


def accepts(world: Any) -> None:
    world.fleet.simulator.simulator.faults.clear()


def test_a_service_renews_by_itself_three_days_before_it_expires(life: Any) -> None:
    world = life()
    first = world.order()

    world.pass_until(first, -3.1)
    assert world.service().paid_periods == 1
    world.pass_until(first, -2.9)

    renewed = world.service()
    assert renewed.paid_periods == 2
    assert renewed.expires_at > first.expires_at
    assert renewed.confirmed_until > first.confirmed_until
    assert world.database.value("SELECT count(*) FROM invoices") == 2
    world.clean()


def test_service_renews_for_a_year_with_every_month_on_one_invoice(life: Any) -> None:
    world = life()
    first = world.order()

    world.pass_days(366)

    assert world.service().paid_periods >= 12
    assert Period(1).end(first.anchor, world.service().paid_periods) == world.expiry(
        world.service()
    )
    numbers = world.database.all("SELECT number FROM invoices ORDER BY number")
    assert [n for (n,) in numbers] == sorted(n for (n,) in numbers)
    world.clean()


def test_renewals_of_one_customer_and_day_are_one_payment_request(life: Any) -> None:
    world = life()
    first = world.order(line("site", quantity=3), line("vm"))
    world.send(given.order("k-2", customer="bob"))

    world.pass_until(first, -2.9)

    renewals = world.database.all(
        "SELECT customer_id, state, (SELECT count(*) FROM request_lines WHERE request_id = r.id)"
        " FROM payment_requests AS r WHERE order_id IS NULL ORDER BY customer_id"
    )
    assert renewals == [("alice", "paid", 4), ("bob", "paid", 1)]
    world.clean()


def test_a_payment_method_that_was_changed_without_a_retry_is_the_one_that_is_charged(
    life: Any,
) -> None:
    world = life()
    first = world.order()
    declines(world)
    world.pass_until(first, -2.9)
    accepts(world)
    # As it is left while its customer has days to object to a higher amount.
    new = derived_id("payment method", "alice", "tok-new")
    with world.fleet.owner.begin() as tx:
        tx.exec_driver_sql(
            "INSERT INTO payment_methods (id, customer_id, token) VALUES (%s, 'alice', 'tok-new')",
            (new,),
        )
        tx.exec_driver_sql("UPDATE services SET payment_method_id = %s", (new,))
        tx.exec_driver_sql(
            "INSERT INTO events (subject, name) SELECT id, 'payment_method.changed' FROM services"
        )

    world.pass_until(first, -0.9)

    paid_with = world.database.all(
        "SELECT payment_method_id FROM charges WHERE state = 'succeeded' ORDER BY started_at"
    )
    assert [row.payment_method_id == new for row in paid_with] == [False, True]
    world.clean()


def test_a_card_that_is_refreshed_under_its_old_token_is_announced_forecast_and_charged(
    life: Any,
) -> None:
    world = life()
    # In the middle of a month, so that the card ends before the charge whatever day it is.
    world.pass_days((12 - world.fleet.clock.now().day) % 28)
    soon = (world.fleet.clock.now() + timedelta(days=5)).strftime("%Y-%m")
    world.order(payment_method_expires=soon)
    first = world.service()
    assert outlook_of(world) == {"undecided_payment"}

    renewed = given.order("k-2", line("vm"), payment_method_expires="2099-12")
    assert world.send(renewed)[0].verdict == "accepted"
    assert outlook_of(world) == {"will_renew"}
    world.pass_until(first, -2.9)

    subjects = [str(mail["Subject"]) for mail in world.mails()]
    assert subjects
    assert not [subject for subject in subjects if "moyen de paiement" in subject]
    assert {service.paid_periods for service in world.services()} == {2}
    world.clean()


def outlook_of(world: Any) -> set[str]:
    today = world.fleet.clock.now().date()
    with world.fleet.engine("readonly").connect() as tx:
        rows = forecast(tx, today=today, until=today + timedelta(days=90), by=By.MONTH)
    return {str(row.decision) for row in rows}


def test_unpaid_service_is_reminded_retried_suspended_and_terminated(life: Any) -> None:
    world = life()
    first = world.order()
    declines(world)

    world.pass_until(first, 4.9)
    service = world.service()
    assert (service.state, service.paid_periods) == ("active", 1)
    assert world.database.value("SELECT count(*) FROM charges WHERE state = 'declined'") == 4

    world.pass_until(first, 5.5)
    assert world.service().state == "suspended"
    world.pass_until(first, 29)
    assert world.service().state == "suspended"
    world.pass_until(first, 32)

    assert world.service().state == "terminated"
    assert world.database.value("SELECT count(*) FROM charges WHERE state = 'declined'") == 5
    assert world.happened("service.ending") == [("service.ending", {"reason": "unpaid"})]
    states = world.database.all("SELECT state FROM payment_requests WHERE order_id IS NULL")
    assert states == [("voided",)]
    assert world.fleet.simulator.simulator.store.resources(0, 10) == []
    world.clean()


def test_payment_of_a_suspended_service_resumes_it_from_its_old_expiry(life: Any) -> None:
    world = life()
    first = world.order()
    declines(world)
    world.pass_until(first, 8)
    assert world.service().state == "suspended"
    accepts(world)

    assert world.renew().verdict == "accepted"
    world.fleet.settle(30)

    service = world.service()
    assert (service.state, service.paid_periods) == ("active", 2)
    assert world.expiry(service) == Period(1).end(first.anchor, 2)
    world.pass_days(30)
    assert world.service().paid_periods == 3
    world.clean()


def test_new_payment_method_retries_unpaid_renewals_at_once(life: Any) -> None:
    world = life([DECLINE | {"customer": "nobody"}])
    first = world.order()
    world.command("payment_method", payment_method="tok-old", payment_method_expires="2020-01")
    world.pass_until(first, -2)
    assert world.service().paid_periods == 1
    reasons = world.database.all("SELECT reason FROM charges WHERE state = 'declined'")
    assert reasons == [("payment_method_expired",)]

    assert world.command("payment_method", payment_method="tok-new").verdict == "accepted"

    assert world.service().paid_periods == 2
    world.clean()


def test_a_stopped_service_ends_at_its_expiry_and_never_pays(life: Any) -> None:
    world = life()
    first = world.order()

    assert world.click("stop").repeated is False
    assert world.click("stop").repeated is True
    world.pass_until(first, -0.1)
    assert world.service().state == "active"
    world.pass_until(first, 0.1)

    assert world.service().state == "terminated"
    assert world.database.value("SELECT count(*) FROM charges") == 1
    assert world.happened("service.ending") == [("service.ending", {"reason": "stopped"})]
    assert world.click("resume").problems[0].code == "service_ended"
    assert world.renew().problems[0].code == "service_ended"
    world.clean()


def test_resume_undoes_a_stop_and_brings_the_former_mode_back(life: Any) -> None:
    world = life()
    first = world.order()
    world.click("mode", mode="manual")
    world.click("stop")

    world.click("resume")

    assert world.service().mode == "manual"
    world.pass_until(first, 1)
    assert world.service().state == "active"


def test_service_stopped_after_a_decline_leaves_the_payment_request_to_the_others(
    life: Any,
) -> None:
    world = life()
    first = world.order(line("site", quantity=2))
    declines(world)
    world.pass_until(first, -2.5)
    first, second = world.services()

    world.click("stop", first)
    accepts(world)
    world.pass_until(second, 0.5)

    states = {s.id: (s.state, s.paid_periods) for s in world.services()}
    assert states == {first.id: ("terminated", 1), second.id: ("active", 2)}
    requests = world.database.all(
        "SELECT state FROM payment_requests WHERE order_id IS NULL ORDER BY state"
    )
    assert [state for (state,) in requests] == ["paid", "split"]
    world.clean()


def test_some_of_a_declined_request_can_be_paid_by_hand(life: Any) -> None:
    world = life()
    first = world.order(line("site", quantity=3))
    declines(world)
    world.pass_until(first, -2.5)
    accepts(world)
    one, *_ = world.services()

    world.renew(one)

    assert [s.paid_periods for s in world.services()] == [2, 1, 1]
    world.pass_until(first, -0.5)
    assert [s.paid_periods for s in world.services()] == [2, 2, 2]
    world.clean()


def test_manual_service_is_reminded_and_never_charged_by_itself(life: Any) -> None:
    world = life()
    first = world.order()
    world.click("mode", mode="manual")

    world.pass_until(first, 4)
    assert world.database.value("SELECT count(*) FROM charges") == 1
    assert len(world.mails()) >= 3
    world.renew()

    assert world.service().paid_periods == 2
    world.clean()


def test_late_payment_buys_the_periods_it_takes_to_reach_the_future(life: Any) -> None:
    world = life(silence_seconds=86_400 * 90.0)
    first = world.order()
    world.click("mode", mode="manual")
    world.fleet.leap(first.expires_at + timedelta(days=40) - world.fleet.clock.now())
    world.fleet.settle(30)

    world.renew()

    service = world.service()
    assert service.paid_periods == 3
    assert service.expires_at > world.fleet.clock.now()
    lines = world.database.all("SELECT period_number FROM invoice_lines ORDER BY period_number")
    assert [n for (n,) in lines] == [1, 2, 3]
    world.clean()


def test_service_without_the_current_contract_is_not_charged_and_ends_at_its_expiry(
    life: Any,
) -> None:
    world = life()
    first = world.order()
    publish(world, 3)

    world.pass_until(first, -0.1)
    assert world.database.value("SELECT count(*) FROM charges") == 1
    world.pass_until(first, 0.1)

    assert world.service().state == "terminated"
    reasons = world.happened("service.ending")
    assert reasons == [("service.ending", {"reason": "contract_not_accepted"})]
    world.clean()


def test_service_renews_at_once_when_its_contract_is_accepted(life: Any) -> None:
    world = life()
    first = world.order(line("site"), line("free"))
    publish(world, 3)
    world.pass_until(first, -1)
    assert sorted(s.paid_periods for s in world.services()) == [1, 2]  # one needs no contract

    answer = world.command("accept", contracts=[{"contract": "terms", "version": 3}])

    assert answer.verdict == "accepted"
    assert [s.paid_periods for s in world.services()] == [2, 2]
    world.clean()


def publish(world: Any, version: int) -> None:
    """Publish a new version of the terms."""
    terms = given.TERMS.__class__("terms", version, "Terms", "https://example.com/terms")
    plans = given.CATALOGUE.plans.values()
    with world.fleet.owner.begin() as tx:
        save(tx, Catalogue(given.CATALOGUE.subsidiaries.values(), [terms], plans))
    world.fleet.settle(30)


def test_first_reminder_fixes_the_price_and_a_rise_waits_for_the_next_period(life: Any) -> None:
    world = life()
    first = world.order()
    world.pass_until(first, -10)  # reminded of 37.87
    raise_price(world, 5000)

    world.pass_until(first, 1)
    nets = [n for (n,) in world.database.all("SELECT net FROM invoices ORDER BY issued_on")]
    assert nets == [3787, 3787]
    world.pass_days(31)

    nets = [n for (n,) in world.database.all("SELECT net FROM invoices ORDER BY issued_on")]
    assert nets == [3787, 3787, 5000]


def raise_price(world: Any, amount: int) -> None:
    def dearer(plan: Plan) -> Plan:
        prices = {
            key: price.__class__(price.setup, Money(amount, "EUR"))
            for key, price in plan.prices.items()
        }
        return given.changed(plan, prices=prices)

    plans = [dearer(plan) for plan in given.CATALOGUE.plans.values()]
    with world.fleet.owner.begin() as tx:
        save(tx, Catalogue(given.CATALOGUE.subsidiaries.values(), [given.TERMS], plans))


def test_service_of_a_brand_without_rollout_is_left_alone(life: Any) -> None:
    world = life(brands=["kimsufi"])
    first = world.order(line("site"), line("server"))

    world.pass_until(first, 40)

    by_plan = {s.plan: (s.state, s.paid_periods) for s in world.services()}
    assert by_plan == {"site": ("active", 1), "server": ("active", 3)}
    assert world.renew(*(s for s in world.services() if s.plan == "site")).problems[0].code == (
        "not_rolled_out"
    )
    world.roll_out("ovh")
    world.fleet.settle(30)
    assert {s.paid_periods for s in world.services()} == {3}
    world.clean()


def test_new_service_is_ordered_with_the_saved_method_in_one_document(life: Any) -> None:
    world = life()
    world.order()
    document = given.order("k-2", line("vm"))
    del document["payment_method"]

    (answer,) = world.send(document)

    assert answer.verdict == "accepted"
    assert world.database.value("SELECT count(*) FROM orders WHERE state = 'delivered'") == 2
    stranger = given.order("k-3", customer="stranger")
    del stranger["payment_method"]
    (refused,) = world.send(stranger)
    assert [p.code for p in refused.problems] == ["payment_method_missing"]


def test_ten_days_without_a_scheduler_do_each_thing_once_and_destroy_nothing(life: Any) -> None:
    world = life()
    first = world.order(line("site", quantity=2))
    world.pass_until(first, -8)

    world.fleet.leap(timedelta(days=10))
    world.fleet.settle(30)
    lanes = world.database.all("SELECT lane FROM lane_pauses ORDER BY lane")
    assert [lane for (lane,) in lanes] == ["destructive", "gateway", "renewals"]
    resume_all(world.database.engine("api"))
    world.fleet.settle(30)

    assert [s.paid_periods for s in world.services()] == [2, 2]
    assert world.database.value("SELECT count(*) FROM charges") == 2
    world.clean()
