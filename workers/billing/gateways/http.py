"""A payment gateway that speaks HTTP; what it must answer is in docs/reference/simulator.md."""

from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.books import BookEntry, BookUnavailable
from schemas.errors import first_line
from schemas.values import Money
from workers.billing.gateways.port import Charge, GatewayAnswer, GatewayState, Refund
from workers.outside.http import Answer, HttpCalls, HttpSettings, InDoubt, NotSent, Text

BOOK_PAGE = 1000


class _Said(BaseModel):
    """What is answered about a charge or a refund: of which, and how it ended."""

    model_config = ConfigDict(extra="ignore", strict=True)

    key: str
    state: Literal["succeeded", "declined"]
    amount: int
    currency: str
    reference: Text | None = None
    reason: Text | None = None


class _Refusal(BaseModel):
    model_config = ConfigDict(extra="ignore")

    reason: Text | None = None
    code: Text | None = None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    number: Annotated[int, Field(ge=0)]
    kind: Literal["charge", "refund"]
    key: Text
    amount: Annotated[int, Field(ge=1)]
    currency: str
    customer: Text | None = None


class _Page(BaseModel):
    entries: list[_Entry]


class HttpGateway:
    Settings = HttpSettings
    immediate = False

    def __init__(self, name: str, settings: HttpSettings) -> None:
        self._calls = HttpCalls(f"gateway:{name}", settings)

    async def perform(self, operation: Charge | Refund) -> GatewayAnswer:
        body: dict[str, object] = {
            "key": operation.key,
            "amount": operation.amount.amount,
            "currency": operation.amount.currency,
        }
        if isinstance(operation, Charge):
            body |= {"token": operation.token, "customer": operation.customer}
            return await self._ask(operation, "charge", "POST", "/charges", body)
        body["charge_key"] = operation.charge_key
        return await self._ask(operation, "refund", "POST", "/refunds", body)

    async def ask(self, operation: Charge | Refund) -> GatewayAnswer:
        kind = "charge" if isinstance(operation, Charge) else "refund"
        path = f"/{kind}s/{quote(operation.key, safe='')}"
        return await self._ask(operation, f"find_{kind}", "GET", path)

    async def book(self, after: str | None) -> list[BookEntry]:
        path = f"/book?after={quote(after or '0')}&limit={BOOK_PAGE}"
        try:
            answer = await self._calls.call("book", "GET", path)
            if answer.status != 200:
                raise BookUnavailable(f"HTTP status {answer.status}")
            entries = [
                BookEntry(str(e.number), e.kind, e.key, Money(e.amount, e.currency), e.customer)
                for e in _Page.model_validate_json(answer.body).entries
            ]
        except (NotSent, InDoubt) as error:
            raise BookUnavailable(str(error)) from None
        except ValueError as error:  # of the model, or of a currency
            raise BookUnavailable(f"not a book: {first_line(error)}") from None
        self._calls.count("book", "succeeded")
        return entries

    async def close(self) -> None:
        await self._calls.close()

    async def _ask(
        self,
        about: Charge | Refund,
        operation: str,
        method: str,
        path: str,
        body: dict[str, object] | None = None,
    ) -> GatewayAnswer:
        try:
            said = await self._calls.call(operation, method, path, body)
            answer = replace(
                _read(said, about, question=body is None), retry_after=said.retry_after
            )
        except NotSent as error:
            answer = GatewayAnswer(GatewayState.UNAVAILABLE, None, error.code, error.words)
        except InDoubt as error:
            answer = GatewayAnswer(
                GatewayState.UNKNOWN, None, error.code, error.words, error.retry_after
            )
        self._calls.count(operation, answer.state)
        return answer


def _read(answer: Answer, about: Charge | Refund, *, question: bool) -> GatewayAnswer:
    if answer.status in (200, 201, 402):
        try:
            said = _Said.model_validate_json(answer.body)
        except ValidationError as error:
            return _unknown(f"not understood: {_fields(error)}")
        if (said.key, said.amount, said.currency) != (
            about.key, about.amount.amount, about.amount.currency,
        ):  # fmt: skip
            return _unknown("answer_contradicts_request")
        return GatewayAnswer(GatewayState(said.state), said.reference, said.reason)
    if answer.status == 404 and question:
        return GatewayAnswer(GatewayState.NOT_FOUND)
    # Anything else is not an answer to what was asked: nothing may be concluded from it.
    try:
        refusal = _Refusal.model_validate_json(answer.body)
    except ValidationError:
        refusal = _Refusal()
    return _unknown(refusal.reason or refusal.code or f"HTTP {answer.status}")


def _unknown(reason: str) -> GatewayAnswer:
    return GatewayAnswer(GatewayState.UNKNOWN, reason=reason)


def _fields(error: ValidationError) -> str:
    """Which fields are wrong; never what they hold."""
    return ", ".join(sorted({str(part["loc"][0]) for part in error.errors() if part["loc"]}))
