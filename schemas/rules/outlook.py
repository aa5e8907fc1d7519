"""What becomes of a service at its expiry if nobody changes anything.

Reminders and the forecast say the same about a service because both ask here; the forecast's SQL
is held against this rule by a property test.
"""

from datetime import date
from enum import StrEnum

from schemas.clock import local_date, local_midnight
from schemas.rules import lifecycle
from schemas.rules.facts import Service
from schemas.rules.payable import PaymentMethod, obstacle
from schemas.rules.policies import Policy
from schemas.values import RenewalMode


class Decision(StrEnum):
    """What becomes of a service at its expiry, as things are; in the order of reports."""

    WILL_RENEW = "will_renew"
    WILL_STOP = "will_stop"
    UNDECIDED_MANUAL = "undecided_manual"
    UNDECIDED_BEHIND = "undecided_behind"  # too many periods are unpaid to charge them by itself
    UNDECIDED_CONTRACT = "undecided_contract"
    UNDECIDED_PAYMENT = "undecided_payment"
    NOT_ROLLED_OUT = "not_rolled_out"  # never charged, whatever its customer wants


def forecast(
    service: Service, policy: Policy, method: PaymentMethod | None, today: date
) -> Decision:
    """What a forecast counts it as.

    Args:
        method: what it is paid with; None: it has none.
        today: the subsidiary's local date.
    """
    switched_on = service.starts_at and local_date(service.starts_at, service.timezone)
    if switched_on is None or switched_on > max(service.expires_on, today):
        return Decision.NOT_ROLLED_OUT
    return decision(service, policy, method, today)


def decision(
    service: Service, policy: Policy, method: PaymentMethod | None, today: date
) -> Decision:
    """The same where renewal is switched on; the first reason that fits."""
    if service.mode is RenewalMode.STOP:
        return Decision.WILL_STOP
    if service.missing_contract is not None:
        return Decision.UNDECIDED_CONTRACT
    if service.mode is RenewalMode.MANUAL:
        return Decision.UNDECIDED_MANUAL
    if service.is_behind(policy, local_midnight(today, service.timezone)):
        return Decision.UNDECIDED_BEHIND
    if service.is_free:
        return Decision.WILL_RENEW
    if obstacle(method, lifecycle.charge_day(service, policy, today)) is not None:
        return Decision.UNDECIDED_PAYMENT
    return Decision.WILL_RENEW
