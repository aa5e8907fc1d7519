"""Whether a payment method can be charged on a day, and what follows for the service it pays."""

import uuid
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.rules.lifecycle import charge_day
from schemas.rules.outlook import Decision, decision, forecast
from schemas.rules.payable import Obstacle, PaymentMethod, obstacle
from schemas.rules.policies import DEFAULT_POLICY
from tests.unit.test_lifecycle import EXPIRY, a_service, manual, on, stopped

dates = st.dates(date(2024, 1, 1), date(2032, 12, 31))
FIRST_CHARGE = EXPIRY - timedelta(days=3)
LATE = replace(DEFAULT_POLICY, code="late", charges=(2, 4))


def card(expires_on: date | None) -> PaymentMethod:
    return PaymentMethod(uuid.UUID(int=1), expires_on)


class TestObstacle:
    def test_no_method_cannot_be_charged_on_any_day(self) -> None:
        assert obstacle(None, EXPIRY) is Obstacle.MISSING

    @given(dates)
    def test_a_method_that_names_no_last_day_can_be_charged_on_any_day(self, on: date) -> None:
        assert obstacle(card(None), on) is None

    @given(dates, dates)
    def test_a_method_can_be_charged_through_its_last_day_and_not_after(
        self, last: date, on: date
    ) -> None:
        assert (obstacle(card(last), on) is None) == (on <= last)


class TestChargeDay:
    def test_it_is_the_first_day_of_charging_while_that_lies_ahead(self) -> None:
        assert charge_day(a_service(), DEFAULT_POLICY, EXPIRY - timedelta(days=20)) == FIRST_CHARGE

    def test_it_is_today_once_that_day_has_passed(self) -> None:
        assert charge_day(a_service(), DEFAULT_POLICY, EXPIRY) == EXPIRY


class TestDecision:
    @pytest.mark.parametrize(
        ("policy", "last_day", "expected"),
        [
            # Good on the first day of charging, expired before the service does.
            (DEFAULT_POLICY, FIRST_CHARGE, Decision.WILL_RENEW),
            (DEFAULT_POLICY, FIRST_CHARGE - timedelta(days=1), Decision.UNDECIDED_PAYMENT),
            # Good at the expiry, expired on the first day of charging, which comes after it.
            (LATE, EXPIRY + timedelta(days=1), Decision.UNDECIDED_PAYMENT),
            (LATE, EXPIRY + timedelta(days=2), Decision.WILL_RENEW),
        ],
    )
    def test_a_card_has_to_be_good_on_the_first_day_of_charging_not_at_the_expiry(
        self, policy: object, last_day: date, expected: Decision
    ) -> None:
        today = EXPIRY - timedelta(days=20)
        assert decision(a_service(), policy, card(last_day), today) is expected  # type: ignore[arg-type]

    def test_the_first_reason_that_fits_is_the_decision(self) -> None:
        today = EXPIRY - timedelta(days=20)
        for service, expected in (
            (stopped(missing_contract=3), Decision.WILL_STOP),
            (manual(missing_contract=3), Decision.UNDECIDED_CONTRACT),
            (manual(), Decision.UNDECIDED_MANUAL),
            (a_service(), Decision.UNDECIDED_PAYMENT),
        ):
            assert decision(service, DEFAULT_POLICY, None, today) is expected

    @pytest.mark.parametrize(
        ("starts_at", "expected"),
        [
            (None, Decision.NOT_ROLLED_OUT),
            (on(1), Decision.NOT_ROLLED_OUT),
            (on(0), Decision.WILL_STOP),
        ],
    )
    def test_what_is_not_switched_on_by_its_expiry_is_not_rolled_out_whatever_else(
        self, starts_at: object, expected: Decision
    ) -> None:
        service = stopped(starts_at=starts_at)
        today = EXPIRY - timedelta(days=20)
        assert forecast(service, DEFAULT_POLICY, None, today) is expected
