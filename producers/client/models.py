"""What can be read over HTTP, as frozen dataclasses.

Made by ``python -m autorenew.contract`` from the OpenAPI document: do not edit.
Amounts are in the currency's minor unit; ids are texts, as methods of the client take them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from producers.client.errors import Problem

__all__ = [
    "Agreement",
    "Catalogue",
    "Charge",
    "Contract",
    "CreditNote",
    "Customer",
    "DocumentLine",
    "Forecast",
    "ForecastRow",
    "Happening",
    "Invoice",
    "InvoiceRow",
    "Line",
    "Money",
    "Next",
    "Option",
    "Order",
    "OrderedService",
    "Payment",
    "PaymentMethod",
    "Plan",
    "Price",
    "Problem",
    "Quote",
    "Refund",
    "Service",
    "ServiceRow",
    "Subsidiary",
    "Upcoming",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """An amount in a currency's minor unit, so that cents never meet euros."""

    amount: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was ordered."""

    number: int
    plan: str
    period: str
    quantity: int
    configuration: Mapping[str, str]
    setup: Money | None
    renewal: Money | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedService:
    """A service of an order; `details` is what its driver says of it, such as an address."""

    id: str
    line: int
    unit: int
    plan: str
    state: str
    resource_id: str | None
    details: Mapping[str, str] | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One attempt to take money; `reason` is why it was declined."""

    attempt: int
    state: str
    amount: Money
    reason: str | None
    started_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """What is asked for an order."""

    state: str
    net: Money
    tax: Money
    total: Money
    tax_mention: str
    invoice: str | None
    charges: tuple[Charge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One line of a timeline."""

    at: datetime
    after_seconds: float
    about: str
    subject: str
    event: str
    waited: float | None
    attempt: int | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order and what became of it."""

    id: str
    upstream: str
    key: str
    state: str
    is_ended: bool
    reason: str | None
    customer: str | None
    subsidiary: str | None
    accepted_at: datetime
    ended_at: datetime | None
    problems: tuple[Problem, ...] = ()
    lines: tuple[Line, ...] = ()
    services: tuple[OrderedService, ...] = ()
    payment: Payment | None = None
    timeline: tuple[Happening, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethod:
    """How a customer pays; the token is the gateway's and billing's alone."""

    id: str
    gateway: str
    expires_on: date | None
    known_since: datetime
    is_saved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A version of a contract that the customer accepted."""

    contract: str
    version: int
    accepted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """What is known of a customer."""

    id: str
    realm: str | None
    subsidiary: str
    country: str
    language: str
    email: str
    vat_number: str | None
    name: str | None
    company: str | None
    address: Mapping[str, Any] | None
    updated_at: datetime
    payment_methods: tuple[PaymentMethod, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    timeline: tuple[Happening, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What happens next by itself."""

    step: str | None
    at: datetime | None
    why: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What renewing a service costs."""

    periods: int
    price: Money
    net: Money
    rate: str
    tax: Money
    total: Money
    mention: str
    paid_until: date
    as_of: date
    stands_until: datetime
    charged_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """What becomes of a service at its expiry, and what is charged for it."""

    service: str
    plan: str
    plan_name: str
    name: str
    expires_on: date
    decision: str
    next: Next
    charged_at: datetime | None
    renewal: Quote | None
    renewal_problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceRow:
    """An invoice as lists show it."""

    number: str
    issued_on: date
    net: Money
    tax: Money
    total: Money
    credit_notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRow:
    """A service as lists show it."""

    id: str
    customer: str
    plan: str
    universe: str
    brand: str
    subsidiary: str
    name: str | None
    period: str
    state: str
    mode: str
    expires_at: datetime | None
    next_step: str | None
    next_step_at: datetime | None
    resource_id: str | None
    suspended_because: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service, and what becomes of it."""

    id: str
    customer: str
    order_key: str | None
    upstream: str | None
    plan: str
    plan_name: str
    universe: str
    brand: str
    subsidiary: str
    period: str
    state: str
    mode: str
    configuration: Mapping[str, str]
    resource_id: str | None
    details: Mapping[str, str] | None
    anchor: date | None
    paid_periods: int
    expires_on: date | None
    expires_at: datetime | None
    suspended_at: datetime | None
    suspended_by_operator: datetime | None
    suspended_because: str | None
    renewal_switched_on: datetime | None
    contract_to_accept: int | None
    declined_charges: int
    decision: str | None
    next: Next
    renewal: Quote | None
    renewal_problem: str | None
    timeline: tuple[Happening, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLine:
    """A line; `period_number` 0 is the setup fee, n the n-th period of the service."""

    number: int
    service: str
    period_number: int
    description: str
    net: Money
    tax_rate: str
    tax: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """An invoice, and the credit notes that correct it."""

    number: str
    issued_on: date
    customer: str
    subsidiary: str
    country: str
    vat_number: str | None
    tax_mention: str
    net: Money
    tax: Money
    total: Money
    order_key: str | None
    lines: tuple[DocumentLine, ...]
    credit_notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """An attempt to give the money of a credit note back."""

    attempt: int
    state: str
    amount: Money
    by_hand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditNote:
    """A credit note, the invoice that it corrects, and the money that goes back."""

    number: str
    issued_on: date
    invoice: str
    customer: str
    subsidiary: str
    reason: str
    net: Money
    tax: Money
    total: Money
    lines: tuple[DocumentLine, ...]
    refunds: tuple[Refund, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsidiary:
    """The legal entity and country that a customer buys from."""

    code: str
    entity: str
    country: str
    currency: str
    timezone: str
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What a plan requires; only its current version can be accepted."""

    code: str
    version: int
    title: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A choice that a plan offers; no `values`: free text."""

    required: bool
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Net prices of a plan in a subsidiary for a period."""

    subsidiary: str
    period: str
    setup: Money
    renewal: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Something that can be ordered."""

    code: str
    name: str
    universe: str
    brand: str
    contract: Contract | None
    quantity_min: int
    quantity_max: int
    options: Mapping[str, Option]
    prices: tuple[Price, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What is on sale."""

    subsidiaries: tuple[Subsidiary, ...]
    plans: tuple[Plan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastRow:
    """Services that fall due together; without `start` they are overdue."""

    start: date | None
    decision: str
    services: int
    suspended_by_operator: int
    net: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What falls due from today on, until the first day that is left out."""

    today: date
    until: date
    by: str
    rows: tuple[ForecastRow, ...]
