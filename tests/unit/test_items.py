"""What an e-mail says about a service: what is true of it when it is sent, or what got dearer."""

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from producers.intake.links import Links
from producers.renewals.announcing import Payer
from producers.renewals.next_steps import Renewable
from schemas.clock import local_midnight
from schemas.messages import moment_text
from schemas.rules import lifecycle
from schemas.rules import notices as kinds
from schemas.rules.facts import Cycle
from schemas.rules.lifecycle import Step
from schemas.rules.notices import BEFORE, CONTRACT, DEARER, KINDS, STOP, Notice
from schemas.rules.payable import PaymentMethod
from schemas.rules.policies import DEFAULT_POLICY
from schemas.values import CustomerId, Money, Period, ServiceId
from tests.support.given import CATALOGUE, FR
from tests.unit.test_lifecycle import EXPIRY, SUSPENDED, a_service, manual, on, stopped
from workers.reminders.items import item_of
from workers.reminders.mail import Item, Situation

MORNING = on(-15, 8)
LINKS = Links("https://example.com/do", "a secret of tests")
CARD = PaymentMethod(uuid.UUID(int=7))
TODAYS_KINDS = [Notice(kind, 1) for kind in KINDS.values() if kind.situation is None]


def renewable(view: lifecycle.Service, **changes: Any) -> Renewable:
    """A site of a month at 37.87 EUR net, 45.44 gross."""
    facts: dict[str, Any] = {
        "id": ServiceId(uuid.UUID(int=1)),
        "order_id": None,
        "customer_id": CustomerId("alice"),
        "subsidiary": FR,
        "plan": CATALOGUE.plans["site"],
        "universe": "web",
        "driver": "web",
        "detail": "example.com",
        "period": Period(1),
        "anchor": Period(1).end(EXPIRY, -1),
        "paid_periods": 1,
        "payment_method_id": CARD.id,
        "noticed_under": view.expires_at,
        "fixed": None,
        "announced": None,
        "request_id": None,
        "requests": 0,
        "generation": 1,
        "next_subject": None,
        "is_held": False,
        "view": view,
    }
    return Renewable(**(facts | changes))


def said(
    service: Renewable,
    *notices: Notice,
    now: datetime = MORNING,
    method: PaymentMethod | None = CARD,
) -> Item:
    payer = Payer("FR", None, method)
    return item_of(service, notices or [Notice(BEFORE, 15)], payer, LINKS, CATALOGUE, now)


@pytest.mark.parametrize(
    ("view", "method", "situation"),
    [
        (a_service(), CARD, Situation.RENEWS),
        (a_service(), None, Situation.METHOD),
        (a_service(), replace(CARD, expires_on=date(2026, 6, 16)), Situation.METHOD),
        (a_service(), replace(CARD, expires_on=date(2026, 6, 17)), Situation.RENEWS),
        (manual(), None, Situation.PAY),
        (stopped(missing_contract=3), None, Situation.STOPS),
        (a_service(missing_contract=3), None, Situation.ACCEPT),
        (a_service(cycle=Cycle(last_declined_at=on(-16))), None, Situation.DECLINED),
        (a_service(**SUSPENDED, suspended_at=on(-16), missing_contract=3), None,
            Situation.SUSPENDED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("notice", TODAYS_KINDS, ids=str)
def test_whatever_was_due_to_be_said_the_item_says_what_is_true_of_the_service(
    view: lifecycle.Service, method: PaymentMethod | None, situation: Situation, notice: Notice
) -> None:
    assert said(renewable(view), notice, method=method).situation is situation


def test_it_names_the_amount_with_tax_and_the_day_of_the_charge() -> None:
    item = said(renewable(a_service()))

    assert (item.amount, item.periods) == (Money(4544, "EUR"), 1)
    assert item.on == EXPIRY - timedelta(days=3)


def test_of_what_stops_no_amount_is_named() -> None:
    assert said(renewable(stopped())).amount is None


def test_the_price_that_was_fixed_is_named_not_that_of_the_catalogue() -> None:
    item = said(renewable(a_service(), fixed=Money(1000, "EUR")))
    assert item.amount == Money(1200, "EUR")


def dearer() -> Renewable:
    cycle = Cycle(
        notices={Notice(BEFORE, 1): on(-1, 8), Notice(DEARER, 1): None},
        announced_at=on(-1, 8), dearer=1, dearer_at=on(0),
    )  # fmt: skip
    return renewable(a_service(cycle=cycle), announced=Money(4000, "EUR"))


def test_what_got_dearer_is_said_with_the_day_after_the_days_of_a_notice() -> None:
    item = said(dearer(), Notice(DEARER, 1), now=on(0, 8))

    assert item.situation is Situation.DEARER
    assert item.amount == Money(4544, "EUR")
    assert item.on == EXPIRY + timedelta(days=7)
    assert set(item.links) == {"renew", "stop"}


@pytest.mark.parametrize("amount", [1, 999_900])
def test_what_was_announced_in_another_currency_is_said_so_whatever_it_is_worth(
    amount: int,
) -> None:
    service = replace(dearer(), announced=Money(amount, "CZK"))
    item = said(service, Notice(DEARER, 1), now=on(0, 8))

    assert (item.situation, item.amount) == (Situation.CONVERTED, Money(4544, "EUR"))
    assert item.on == EXPIRY + timedelta(days=7)
    assert set(item.links) == {"renew", "stop"}


def test_what_is_not_dearer_any_more_when_its_e_mail_is_sent_renews() -> None:
    told_since = replace(dearer(), announced=Money(4544, "EUR"))
    item = said(told_since, Notice(DEARER, 1), now=on(0, 8))

    assert (item.situation, item.amount) == (Situation.RENEWS, Money(4544, "EUR"))


@pytest.mark.parametrize(
    ("view", "notice", "now", "day"),
    [
        (stopped(), Notice(STOP), on(-7, 8), 0),
        # Told late: a day to undo it, from the e-mail or from the click.
        (stopped(), Notice(STOP), on(3, 8), 5),
        (stopped(mode_changed_at=on(5, 9)), Notice(STOP), on(6, 8), 8),
        (stopped(cycle=Cycle(notices={Notice(BEFORE, 7): on(-7, 8)}), mode_changed_at=on(5, 9)),
            Notice(STOP), on(6, 7), 7),
        (a_service(missing_contract=3), Notice(CONTRACT, 3), on(-7, 8), 1),
        # A version that came late, and one whose e-mail did.
        (a_service(missing_contract=3), Notice(CONTRACT, 3), on(-2, 8), 6),
        (a_service(missing_contract=3), Notice(CONTRACT, 3), on(2, 8), 10),
        # The days count from the first e-mail that named the version.
        (a_service(missing_contract=3, cycle=Cycle(notices={Notice(CONTRACT, 3): on(-2, 8)})),
            Notice(BEFORE, 1), on(1, 8), 6),
        (manual(**SUSPENDED, suspended_at=on(5),
                cycle=Cycle(notices={Notice(kinds.SUSPENDED): on(26, 8)})),
            Notice(CONTRACT, 3), on(28, 8), 34),
    ],
)  # fmt: skip
def test_an_end_is_named_by_the_last_full_day_before_it(
    view: lifecycle.Service, notice: Notice, now: datetime, day: int
) -> None:
    item = said(renewable(view), notice, now=now)
    assert item.on == EXPIRY + timedelta(days=day - 1)

    told = replace(view, cycle=replace(view.cycle, notices={notice: now, **view.cycle.notices}))
    end = lifecycle.next_step(told, DEFAULT_POLICY, on(99), reminders=False)
    assert end is not None
    assert end.step is Step.TERMINATE
    assert end.at == local_midnight(item.on + timedelta(days=1), view.timezone)


def test_something_more_urgent_is_said_instead_with_the_new_amount() -> None:
    item = said(dearer(), Notice(DEARER, 1), now=on(0, 8), method=None)

    assert (item.situation, item.amount) == (Situation.METHOD, Money(4544, "EUR"))


def test_paid_late_it_names_the_periods_it_takes() -> None:
    late = renewable(manual())
    item = said(late, now=datetime(2026, 7, 25, 8, tzinfo=UTC))

    assert (item.periods, item.amount) == (2, Money(9089, "EUR"))


def test_a_higher_amount_is_that_of_the_day_to_which_its_own_announcement_puts_the_charge_off() -> (
    None
):
    cycle = Cycle(
        notices={Notice(BEFORE, 1): on(-1, 8), Notice(DEARER, 1): None},
        announced_at=on(-1, 8), dearer=1, dearer_at=on(25),
    )  # fmt: skip
    service = renewable(a_service(cycle=cycle), announced=Money(4000, "EUR"))
    item = said(service, Notice(DEARER, 1), now=on(26, 8))

    assert item.on == EXPIRY + timedelta(days=33)  # the next period has ended by then
    assert (item.periods, item.amount) == (2, Money(9089, "EUR"))


def test_links_are_of_the_moment_the_mail_was_begun_so_that_it_can_be_sent_again_as_it_was() -> (
    None
):
    service = renewable(a_service())
    payer = Payer("FR", None, CARD)

    def links(now: datetime, begun_at: datetime | None) -> dict[str, str]:
        notices = [Notice(BEFORE, 15)]
        said = item_of(service, notices, payer, LINKS, CATALOGUE, now, begun_at=begun_at)
        return dict(said.links)

    assert links(MORNING, None) == links(MORNING + timedelta(hours=3), MORNING)
    assert links(MORNING, None) != links(MORNING + timedelta(hours=3), None)


def test_links_know_a_change_of_the_mode_that_the_mail_knows() -> None:
    changed_at = MORNING + timedelta(hours=1)
    service = renewable(stopped(mode_changed_at=changed_at))
    notices, payer = [Notice(BEFORE, 15)], Payer("FR", None, CARD)
    now = MORNING + timedelta(hours=3)
    item = item_of(service, notices, payer, LINKS, CATALOGUE, now, begun_at=MORNING)

    assert LINKS.open(item.links["resume"], now)["as_of"] == moment_text(changed_at)
