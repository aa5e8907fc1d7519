"""One attempt to take money: what is tried next, and what an answer means. Pure functions."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from producers.ledger import ClaimedTask, Failure, Retry
from schemas.rules.payable import Obstacle
from schemas.values import ChargeState, Money, OrderId, RequestId, derived_id, without_day
from workers.billing.gateways.port import Charge, GatewayAnswer, GatewayState, said
from workers.runtime.retries import RetryPolicy


@dataclass(frozen=True, slots=True)
class Attempt:
    """A charge under way: a new one, or one that has to be asked about first.

    Attributes:
        order_id: None: it is of a renewal.
        number: counts the charges of a request, from 1; a new one only after a decline.
        in_doubt: it was begun before, and how it ended is not known.
        given_up: a person cancelled the order, or this attempt to charge a renewal: nothing more is
            tried, but what was is asked about.
        gateway: where its payment method is charged.
        cannot_pay: why its payment method cannot be charged today, if it cannot.
    """

    request_id: RequestId
    order_id: OrderId | None
    subsidiary: str
    number: int
    in_doubt: bool
    given_up: bool
    method_id: uuid.UUID | None
    gateway: str | None
    cannot_pay: Obstacle | None
    charge: Charge

    @property
    def subject(self) -> uuid.UUID:
        """Whose history it belongs to."""
        return self.order_id or self.request_id

    @property
    def answer_without_call(self) -> GatewayAnswer | None:
        """The answer where there is nothing to ask a gateway for; None: it has to be called."""
        if self.charge.amount.amount == 0:
            return GatewayAnswer(GatewayState.SUCCEEDED, reason="nothing_to_pay")
        if self.cannot_pay is Obstacle.MISSING or (self.cannot_pay and not self.in_doubt):
            return GatewayAnswer(GatewayState.DECLINED, reason=self.cannot_pay)
        return None


def next_attempt(row: Any, cannot_pay: Obstacle | None) -> Attempt:
    """What to do about an open request, by its last charge.

    Args:
        row: the request with its last charge and the payment method that is to pay it.
        cannot_pay: why that method cannot be charged today, if it cannot.
    """
    in_doubt = row.state in (ChargeState.STARTED, ChargeState.UNKNOWN)
    number = row.attempt if in_doubt else (row.attempt or 0) + 1
    amount = Money(row.total, row.currency)
    # From business facts: a restored database derives the same key for the same attempt.
    key = row.key if in_doubt else charge_key(row.id, amount, number)
    return Attempt(
        request_id=row.id,
        order_id=row.order_id,
        subsidiary=row.subsidiary,
        number=number,
        in_doubt=in_doubt,
        given_up=row.given_up,
        method_id=row.method_id,
        gateway=row.gateway,
        cannot_pay=cannot_pay,
        charge=Charge(str(key), amount, row.token or "", row.customer_id),
    )


def charge_key(request_id: uuid.UUID, amount: Money, number: int) -> uuid.UUID:
    """The key under which the n-th charge of a request is known at its gateway.

    It has no day: gateways may know UUIDs of version 5 and not of version 8.
    """
    return derived_id("charge", without_day(request_id), amount, number)


class Effect(StrEnum):
    """What a decided charge means for its payment request."""

    PAID = "paid"
    DECLINED = "declined"  # a renewal's: the next step of its services says when it is tried again
    VOIDED = "voided"  # an order's: no money will come


# A gateway that was asked so often about the charge of what was given up has not heard of it.
ASKED_ENOUGH = 8


@dataclass(frozen=True, slots=True)
class ChargePolicy:
    """
    Attributes:
        order_delays: seconds to wait after each decline of an order's charge; when they are used
            up, its request is voided. A renewal's charges are its life-cycle policy's affair.
        calls: for attempts whose outcome is unknown, and for a gateway that is away.
    """

    order_delays: Sequence[float]
    calls: RetryPolicy


def last_word(
    task: ClaimedTask, attempt: Attempt, answer: GatewayAnswer, policy: ChargePolicy
) -> GatewayAnswer:
    """The answer that counts.

    A person gave it up, and the gateway has not heard of its charge however often it was
    asked: no money will come. Should it come after all, the audit tells.
    """
    asked_enough = task.attempts + 1 >= min(ASKED_ENOUGH, policy.calls.attempts)
    if attempt.given_up and asked_enough and answer.state is GatewayState.NOT_FOUND:
        return GatewayAnswer(GatewayState.DECLINED, reason="not_found")
    return answer


def meaning_of(
    task: ClaimedTask, attempt: Attempt, answer: GatewayAnswer, policy: ChargePolicy
) -> Effect | Retry | Failure:
    """What becomes of a request, or of its task, by the answer that counts."""
    reason = answer.reason or ""
    match answer.state:
        case GatewayState.SUCCEEDED:
            return Effect.PAID
        case GatewayState.DECLINED:
            if attempt.order_id is None:
                return Effect.DECLINED
            if attempt.given_up or attempt.number > len(policy.order_delays):
                return Effect.VOIDED
            delay = policy.order_delays[attempt.number - 1]
            return Retry(task.subject, "declined", reason, delay=delay, counts=False)
        case state:
            return policy.calls.decide(task, f"gateway_{state}", said(answer), answer.reason)
