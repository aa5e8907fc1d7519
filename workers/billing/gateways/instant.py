"""A gateway in memory that answers at once: for benchmarks and tests."""

import threading

from workers.billing.gateways.port import BookEntry, Charge, GatewayAnswer, GatewayState, Refund

_SUCCEEDED = GatewayState.SUCCEEDED


class InstantGateway:
    immediate = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, Charge | Refund] = {}
        self._given_back: dict[str, int] = {}  # of a charge
        self._declined: dict[str, str] = {}  # refund -> why

    def charge(self, charge: Charge) -> GatewayAnswer:
        # One step, so that no lock is needed.
        known = self._calls.setdefault(charge.key, charge)
        if known is not charge and known != charge:
            return GatewayAnswer(GatewayState.UNKNOWN, reason="key_reused")
        return GatewayAnswer(_SUCCEEDED, charge.key)

    def find_charge(self, key: str) -> GatewayAnswer:
        if isinstance(self._calls.get(key), Charge):
            return GatewayAnswer(_SUCCEEDED, key)
        return GatewayAnswer(GatewayState.NOT_FOUND)

    def refund(self, refund: Refund) -> GatewayAnswer:
        with self._lock:
            known = self._calls.get(refund.key)
            if known is None:
                self._calls[refund.key] = refund
                self._give_back(refund)
            elif known != refund:
                return GatewayAnswer(GatewayState.UNKNOWN, reason="key_reused")
        return self._answer(refund.key)

    def find_refund(self, key: str) -> GatewayAnswer:
        if isinstance(self._calls.get(key), Refund):
            return self._answer(key)
        return GatewayAnswer(GatewayState.NOT_FOUND)

    def book(self, after: int) -> list[BookEntry]:
        moved = [c for key, c in list(self._calls.items()) if key not in self._declined]
        return [
            BookEntry(
                number,
                "charge" if isinstance(call, Charge) else "refund",
                call.key,
                call.amount,
                call.customer if isinstance(call, Charge) else None,
            )
            for number, call in enumerate(moved, 1)
            if number > after
        ]

    def _give_back(self, refund: Refund) -> None:
        charge = self._calls.get(refund.charge_key)
        given_back = self._given_back.get(refund.charge_key, 0) + refund.amount.amount
        if not isinstance(charge, Charge) or charge.amount.currency != refund.amount.currency:
            self._declined[refund.key] = "no_such_charge"
        elif given_back > charge.amount.amount:
            self._declined[refund.key] = "exceeds_charge"
        else:
            self._given_back[refund.charge_key] = given_back

    def _answer(self, key: str) -> GatewayAnswer:
        why = self._declined.get(key)
        if why is not None:
            return GatewayAnswer(GatewayState.DECLINED, reason=why)
        return GatewayAnswer(_SUCCEEDED, key)
