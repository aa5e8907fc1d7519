"""A gateway in memory that answers at once: for benchmarks and tests."""

import threading

from pydantic import BaseModel

from schemas.books import BookEntry
from workers.billing.gateways.port import Charge, GatewayAnswer, GatewayState, Refund

_SUCCEEDED = GatewayState.SUCCEEDED


class NoSettings(BaseModel):
    """There is nothing to tell it."""


class InstantGateway:
    Settings = NoSettings
    immediate = True

    def __init__(self, _name: str = "instant", _settings: NoSettings | None = None) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, Charge | Refund] = {}
        self._given_back: dict[str, int] = {}  # of a charge
        self._declined: dict[str, str] = {}  # refund -> why

    async def perform(self, operation: Charge | Refund) -> GatewayAnswer:
        if isinstance(operation, Refund):
            return self._refund(operation)
        # One step, so that no lock is needed.
        known = self._calls.setdefault(operation.key, operation)
        if known is not operation and known != operation:
            return GatewayAnswer(GatewayState.UNKNOWN, reason="key_reused")
        return GatewayAnswer(_SUCCEEDED, operation.key)

    async def ask(self, operation: Charge | Refund) -> GatewayAnswer:
        known = self._calls.get(operation.key)
        if type(known) is not type(operation):
            return GatewayAnswer(GatewayState.NOT_FOUND)
        if known is not None and known.amount != operation.amount:
            return GatewayAnswer(GatewayState.UNKNOWN, reason="answer_contradicts_request")
        return self._answer(operation.key)

    async def book(self, after: str | None) -> list[BookEntry]:
        moved = [c for key, c in list(self._calls.items()) if key not in self._declined]
        return [
            BookEntry(
                str(number),
                "charge" if isinstance(call, Charge) else "refund",
                call.key,
                call.amount,
                call.customer if isinstance(call, Charge) else None,
            )
            for number, call in enumerate(moved, 1)
            if number > int(after or 0)
        ]

    async def close(self) -> None:
        pass

    def _refund(self, refund: Refund) -> GatewayAnswer:
        with self._lock:
            known = self._calls.get(refund.key)
            if known is None:
                self._calls[refund.key] = refund
                self._give_back(refund)
            elif known != refund:
                return GatewayAnswer(GatewayState.UNKNOWN, reason="key_reused")
        return self._answer(refund.key)

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
