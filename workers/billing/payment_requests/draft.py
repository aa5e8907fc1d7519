"""What a payment request asks for: drafted from quotes, without any database."""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from producers.renewals.next_steps import Renewable
from schemas.errors import DataError
from schemas.rules import tax
from schemas.rules.quote import Quote
from schemas.values import CustomerId, Money, RequestId, ServiceId, derived_id

MOST_LINES = 500
"""Lines of a payment request, and so of its invoice; our own choice. What is more is asked for by
further requests of the same day."""


@dataclass(frozen=True, slots=True)
class Customer:
    """What of a customer decides about tax."""

    id: CustomerId
    country: str
    vat_number: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """One period of one service; amounts in minor units of the draft's currency.

    Attributes:
        tax: its part of the tax on all lines.
    """

    service_id: ServiceId
    period_number: int
    description: str
    net: int
    tax_rate: Decimal
    tax: int

    @property
    def asks_for(self) -> tuple[object, ...]:
        """All but its words."""
        return self.service_id, self.period_number, self.net, self.tax_rate, self.tax


@dataclass(frozen=True, slots=True)
class Draft:
    """A payment request to be: its lines, and who is to pay them.

    Attributes:
        stands_until: from when on it asks for the wrong amount; None: it always stands.
    """

    id: RequestId
    payment_method_id: uuid.UUID | None
    customer: Customer
    subsidiary: str
    currency: str
    mention: str
    lines: Sequence[Line]
    services: Sequence[Renewable]
    stands_until: datetime | None

    @property
    def net(self) -> Money:
        return Money(sum(line.net for line in self.lines), self.currency)

    @property
    def tax(self) -> Money:
        return Money(sum(line.tax for line in self.lines), self.currency)


def parts_of(
    services: Iterable[Renewable], quotes: Mapping[ServiceId, Quote]
) -> Iterator[list[Renewable]]:
    """Services that could share one payment request, as the requests that they get: of at most
    :data:`MOST_LINES` lines each. What costs nothing stands apart: it waits for nobody's payment.

    Args:
        quotes: of each of the services.
    """
    parts: dict[bool, list[Renewable]] = {}
    lines: Counter[bool] = Counter()
    for service in sorted(services, key=lambda service: service.id):
        quote = quotes[service.id]
        is_free = quote.gross.amount == 0
        if lines[is_free] + quote.periods > MOST_LINES and is_free in parts:
            yield parts.pop(is_free)
            lines[is_free] = 0
        parts.setdefault(is_free, []).append(service)
        lines[is_free] += quote.periods
    yield from parts.values()


def draft(services: Sequence[Renewable], customer: Customer, now: datetime) -> Draft:
    """Ask for the renewal of services of one customer, subsidiary, currency and payment method.

    Raises:
        DataError: ``price_gone``: one has no price any more; or the tax table has no rate.
    """
    quotes = [quote_of(service, customer, now) for service in services]
    first = services[0]
    return Draft(
        id=id_of(services),
        payment_method_id=first.payment_method_id,
        customer=customer,
        subsidiary=first.subsidiary.code,
        currency=first.currency,
        mention=quotes[0].mention,
        lines=taxed(
            Line(
                service_id=service.id,
                period_number=service.paid_periods + number,
                description=f"{service.plan.name}, {service.period}",
                net=quote.price.amount,
                tax_rate=quote.rate,
                tax=0,
            )
            for service, quote in zip(services, quotes, strict=True)
            for number in range(1, quote.periods + 1)
        ),
        services=services,
        stands_until=min(quote.stands_until for quote in quotes),
    )


def taxed(lines: Iterable[Line]) -> list[Line]:
    """Lines of one request, with the tax on their sum: one rate holds for all of a customer's."""
    lines = sorted(lines, key=lambda line: (line.service_id, line.period_number))
    parts = tax.spread([line.net for line in lines], lines[0].tax_rate)
    return [replace(line, tax=part) for line, part in zip(lines, parts, strict=True)]


def quote_of(service: Renewable, customer: Customer, now: datetime) -> Quote:
    """What renewing a service now costs.

    Raises:
        DataError: ``price_gone``: it has no price any more; or the tax table has no rate.
    """
    quote = service.quote(customer.country, customer.vat_number, now)
    if quote is None:
        message = f"{service.plan.code} has no price in {service.subsidiary.code}"
        raise DataError(f"{message} for {service.period}", code="price_gone")
    return quote


def id_of(services: Sequence[Renewable]) -> RequestId:
    """From business facts alone: a restored database asks for the same under the same name.

    It is near the day on which the services end, and its invoice is near it.
    """
    ends = min(service.period.end(service.anchor, service.paid_periods) for service in services)
    return RequestId(derived_id(*_facts(services), near=ends))


def former_id_of(services: Sequence[Renewable]) -> RequestId:
    """What a request of these was named before names had a day."""
    return RequestId(derived_id(*_facts(services)))


def _facts(services: Sequence[Renewable]) -> Sequence[str]:
    return "renewal request", *sorted(f"{s.id}:{s.paid_periods}:{s.requests}" for s in services)
