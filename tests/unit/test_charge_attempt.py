"""What a gateway's answer means for a payment request: pure, by table."""

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from producers.ledger import ClaimedTask, Failure, Retry
from schemas.rules.payable import Obstacle
from schemas.values import Money, OrderId, RequestId
from workers.billing.charges.attempt import (
    Attempt,
    ChargePolicy,
    Effect,
    charge_key,
    last_word,
    meaning_of,
    next_attempt,
)
from workers.billing.gateways.port import Charge, GatewayAnswer, GatewayState
from workers.runtime.retries import RetryPolicy

REQUEST, ORDER = RequestId(uuid.UUID(int=1)), OrderId(uuid.UUID(int=2))
POLICY = ChargePolicy(order_delays=(60.0, 600.0), calls=RetryPolicy(5, 3600, attempts=3))
SUCCEEDED = GatewayAnswer(GatewayState.SUCCEEDED, "ch-1")
DECLINED = GatewayAnswer(GatewayState.DECLINED, reason="insufficient_funds")
NOT_FOUND = GatewayAnswer(GatewayState.NOT_FOUND)
UNKNOWN = GatewayAnswer(GatewayState.UNKNOWN, reason="HTTP 500")


def task(attempts: int = 0) -> ClaimedTask:
    return ClaimedTask(REQUEST, wanted=1, attempts=attempts, waited=0.0)


def attempt(number: int = 1, *, order: bool = True, **changes: Any) -> Attempt:
    facts: dict[str, Any] = {
        "request_id": REQUEST,
        "order_id": ORDER if order else None,
        "subsidiary": "FR",
        "number": number,
        "in_doubt": False,
        "given_up": False,
        "method_id": uuid.UUID(int=3),
        "gateway": "default",
        "cannot_pay": None,
        "charge": Charge("key-1", Money(4544, "EUR"), "tok", "alice"),
    }
    return Attempt(**(facts | changes))


@pytest.mark.parametrize("order", [True, False])
def test_success_pays_the_request(order: bool) -> None:
    assert meaning_of(task(), attempt(order=order), SUCCEEDED, POLICY) is Effect.PAID


@pytest.mark.parametrize(("number", "delay"), [(1, 60.0), (2, 600.0)])
def test_declined_order_is_charged_again_after_its_delays(number: int, delay: float) -> None:
    meant = meaning_of(task(), attempt(number), DECLINED, POLICY)
    assert meant == Retry(
        REQUEST, "declined", "insufficient_funds", delay=delay, counts=False, jitter=False
    )


def test_order_that_is_declined_after_its_last_delay_is_voided() -> None:
    assert meaning_of(task(), attempt(3), DECLINED, POLICY) is Effect.VOIDED


def test_declined_order_that_was_given_up_is_voided_at_once() -> None:
    assert meaning_of(task(), attempt(1, given_up=True), DECLINED, POLICY) is Effect.VOIDED


@pytest.mark.parametrize("number", [1, 3, 9])
def test_declined_renewal_is_left_to_the_next_step_of_its_services(number: int) -> None:
    assert meaning_of(task(), attempt(number, order=False), DECLINED, POLICY) is Effect.DECLINED


@pytest.mark.parametrize("answer", [UNKNOWN, NOT_FOUND, GatewayAnswer(GatewayState.UNAVAILABLE)])
@pytest.mark.parametrize("order", [True, False])
def test_nothing_is_concluded_from_what_is_not_decided(answer: GatewayAnswer, order: bool) -> None:
    meant = meaning_of(task(), attempt(order=order), answer, POLICY)
    assert isinstance(meant, Retry)
    assert (meant.reason, meant.counts, meant.jitter) == (f"gateway_{answer.state}", True, True)


def test_charge_that_stays_unknown_waits_for_a_person() -> None:
    meant = meaning_of(task(attempts=2), attempt(), UNKNOWN, POLICY)
    assert meant == Failure(REQUEST, "gateway_unknown", "HTTP 500", "HTTP 500")


def test_order_given_up_of_which_the_gateway_never_heard_is_declined_in_the_end() -> None:
    given_up = attempt(given_up=True, in_doubt=True)
    assert last_word(task(attempts=1), given_up, NOT_FOUND, POLICY) == NOT_FOUND
    answer = last_word(task(attempts=2), given_up, NOT_FOUND, POLICY)
    assert (answer.state, answer.reason) == (GatewayState.DECLINED, "not_found")
    assert meaning_of(task(attempts=2), given_up, answer, POLICY) is Effect.VOIDED


def test_last_word_about_an_order_that_goes_on_is_the_gateways() -> None:
    assert last_word(task(attempts=2), attempt(in_doubt=True), NOT_FOUND, POLICY) == NOT_FOUND


class TestWithoutACall:
    def test_nothing_to_pay_is_paid(self) -> None:
        free = attempt(charge=Charge("key-1", Money(0, "EUR"), "tok", "alice"))
        answer = free.answer_without_call
        assert answer is not None
        assert answer.state is GatewayState.SUCCEEDED

    @pytest.mark.parametrize("why", list(Obstacle))
    def test_method_that_cannot_be_charged_declines_with_its_reason(self, why: Obstacle) -> None:
        answer = attempt(cannot_pay=why).answer_without_call
        assert answer == GatewayAnswer(GatewayState.DECLINED, reason=why)

    def test_charge_in_doubt_is_asked_about_although_its_method_has_expired(self) -> None:
        doubted = attempt(cannot_pay=Obstacle.EXPIRED, in_doubt=True)
        assert doubted.answer_without_call is None

    def test_method_that_can_be_charged_has_to_be_called_for(self) -> None:
        assert attempt().answer_without_call is None


def row(**changes: Any) -> Any:
    facts: dict[str, Any] = {
        "id": REQUEST, "order_id": ORDER, "customer_id": "alice", "subsidiary": "FR",
        "currency": "EUR", "total": 4544, "method_id": None, "token": None, "gateway": None,
        "key": None, "attempt": None, "state": None, "given_up": False,
    }  # fmt: skip
    return SimpleNamespace(**(facts | changes))


class TestNextAttempt:
    def test_first_charge_of_a_request_is_number_one(self) -> None:
        first = next_attempt(row(), None)
        assert (first.number, first.in_doubt) == (1, False)
        assert first.charge.key == str(charge_key(REQUEST, Money(4544, "EUR"), 1))

    def test_charge_after_a_decline_has_a_new_key(self) -> None:
        key = charge_key(REQUEST, Money(4544, "EUR"), 1)
        second = next_attempt(row(key=key, attempt=1, state="declined"), None)
        assert (second.number, second.in_doubt) == (2, False)
        assert second.charge.key == str(charge_key(REQUEST, Money(4544, "EUR"), 2))

    @pytest.mark.parametrize("state", ["started", "unknown"])
    def test_charge_in_doubt_keeps_its_key(self, state: str) -> None:
        key = uuid.uuid4()
        again = next_attempt(row(key=key, attempt=4, state=state), None)
        assert (again.number, again.in_doubt, again.charge.key) == (4, True, str(key))
