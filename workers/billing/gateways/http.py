"""A payment gateway that speaks HTTP; what it must answer is in docs/reference/simulator.md."""

from typing import Any
from urllib.parse import quote

from schemas.values import Money
from workers.billing.gateways.port import (
    BookEntry,
    BookUnavailable,
    Charge,
    GatewayAnswer,
    GatewayState,
    Refund,
)
from workers.outside.http import Answer, HttpCalls, InDoubt, NotSent

BOOK_PAGE = 1000


class HttpGateway:
    immediate = False

    def __init__(self, base_url: str, *, seconds: float, token: str | None = None) -> None:
        self._calls = HttpCalls("gateway", base_url, token=token, seconds=seconds)

    def charge(self, charge: Charge) -> GatewayAnswer:
        body = {
            "key": charge.key,
            "amount": charge.amount.amount,
            "currency": charge.amount.currency,
            "token": charge.token,
            "customer": charge.customer,
        }
        return self._ask("charge", "POST", "/charges", body)

    def find_charge(self, key: str) -> GatewayAnswer:
        return self._ask("find_charge", "GET", f"/charges/{quote(key)}")

    def refund(self, refund: Refund) -> GatewayAnswer:
        body = {
            "key": refund.key,
            "charge_key": refund.charge_key,
            "amount": refund.amount.amount,
            "currency": refund.amount.currency,
        }
        return self._ask("refund", "POST", "/refunds", body)

    def find_refund(self, key: str) -> GatewayAnswer:
        return self._ask("find_refund", "GET", f"/refunds/{quote(key)}")

    def book(self, after: int) -> list[BookEntry]:
        try:
            answer = self._calls.call("book", "GET", f"/book?after={after}&limit={BOOK_PAGE}", None)
            if answer.status != 200:
                raise BookUnavailable(f"HTTP status {answer.status}")
            entries = [_entry(entry) for entry in answer.body["entries"]]
        except (NotSent, InDoubt) as error:
            raise BookUnavailable(str(error)) from None
        except (KeyError, TypeError, ValueError) as error:
            raise BookUnavailable(f"not a book: {error!r}") from None
        self._calls.count("book", "succeeded")
        return entries

    def _ask(
        self, operation: str, method: str, path: str, body: dict[str, object] | None = None
    ) -> GatewayAnswer:
        try:
            answer = _read(self._calls.call(operation, method, path, body), question=body is None)
        except NotSent as error:
            answer = GatewayAnswer(GatewayState.UNAVAILABLE, reason=str(error))
        except InDoubt as error:
            answer = GatewayAnswer(GatewayState.UNKNOWN, reason=str(error))
        self._calls.count(operation, answer.state)
        return answer


def _entry(entry: Any) -> BookEntry:
    amount = Money(int(entry["amount"]), entry["currency"])
    return BookEntry(
        int(entry["number"]), entry["kind"], entry["key"], amount, entry.get("customer")
    )


def _read(answer: Answer, *, question: bool) -> GatewayAnswer:
    state = answer.body.get("state")
    reason = answer.body.get("reason")
    if answer.status in (200, 201, 402) and state in ("succeeded", "declined"):
        reference = answer.body.get("reference")
        return GatewayAnswer(GatewayState(state), reference, reason)
    if answer.status == 404 and question:
        return GatewayAnswer(GatewayState.NOT_FOUND)
    # Anything else is not an answer to what was asked: nothing may be concluded from it.
    return GatewayAnswer(GatewayState.UNKNOWN, reason=reason or f"HTTP {answer.status}")
