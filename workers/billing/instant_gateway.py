"""A gateway in memory that answers at once: for benchmarks and tests."""

import threading

from schemas.values import Money
from workers.billing.gateway import Charge, GatewayAnswer, GatewayState, Refund

_SUCCEEDED = GatewayState.SUCCEEDED


class InstantGateway:
    immediate = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._charges: dict[str, Money] = {}
        self._refunds: dict[str, Refund] = {}

    def charge(self, charge: Charge) -> GatewayAnswer:
        self._charges.setdefault(charge.key, charge.amount)
        return GatewayAnswer(_SUCCEEDED, charge.key)

    def find_charge(self, key: str) -> GatewayAnswer:
        known = key in self._charges
        return GatewayAnswer(_SUCCEEDED, key) if known else GatewayAnswer(GatewayState.NOT_FOUND)

    def refund(self, refund: Refund) -> GatewayAnswer:
        with self._lock:
            if refund.key not in self._refunds:
                given = sum(
                    r.amount.amount
                    for r in self._refunds.values()
                    if r.charge_key == refund.charge_key
                )
                charged = self._charges.get(refund.charge_key)
                if charged is None or given + refund.amount.amount > charged.amount:
                    return GatewayAnswer(GatewayState.DECLINED, reason="exceeds_charge")
                self._refunds[refund.key] = refund
        return GatewayAnswer(_SUCCEEDED, refund.key)

    def find_refund(self, key: str) -> GatewayAnswer:
        known = key in self._refunds
        return GatewayAnswer(_SUCCEEDED, key) if known else GatewayAnswer(GatewayState.NOT_FOUND)
