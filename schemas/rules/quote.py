"""What renewing a service costs now: periods, net, tax, currency, and for how long that stands."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from schemas.catalogue.models import Subsidiary
from schemas.clock import local_date, local_midnight
from schemas.rules import lifecycle, tax
from schemas.values import Money, Period


@dataclass(frozen=True, slots=True)
class Quote:
    """What is to be paid to renew one service, and what that buys.

    Attributes:
        periods: how many it buys; more than one, if fewer would not reach the future.
        price: net of one period.
        rate: of the tax, in percent.
        mention: what an invoice says about the tax.
        paid_until: the local day on which the service expires then.
        as_of: the subsidiary's local day that it is right for.
        stands_until: the first moment at which the periods or the rate may be others.
    """

    periods: int
    price: Money
    rate: Decimal
    mention: str
    paid_until: date
    as_of: date
    stands_until: datetime

    @property
    def currency(self) -> str:
        return self.price.currency

    @property
    def net(self) -> Money:
        return Money(self.price.amount * self.periods, self.currency)

    @property
    def tax(self) -> Money:
        """Of this service alone. An invoice rounds once for all its lines, so that its tax may be
        another by half a minor unit for each service."""
        return Money(tax.tax_on(self.net.amount, self.rate), self.currency)

    @property
    def gross(self) -> Money:
        return self.net + self.tax

    def is_dearer_than(self, announced: Money | None) -> bool:
        """Whether it costs more than the customer was told; nothing was told (None): no.

        An amount in another currency cannot be compared: the customer has to be told anew.
        """
        if announced is None:
            return False
        another_currency = self.is_in_another_currency_than(announced)
        return another_currency or self.gross.amount > announced.amount

    def is_in_another_currency_than(self, announced: Money | None) -> bool:
        return announced is not None and announced.currency != self.currency


def quote(
    *,
    anchor: date,
    period: Period,
    paid_periods: int,
    price: Money,
    subsidiary: Subsidiary,
    country: str,
    vat_number: str | None,
    now: datetime,
) -> Quote:
    """Quote the renewal of a service.

    It is renewed from its old expiry on, for as many periods as it takes to reach the future, at
    the tax rate of the subsidiary's local day.

    Args:
        anchor: of the service; its n-th period ends n periods after it.
        price: net of one period.
        country, vat_number: the customer's.

    Raises:
        DataError: the tax table has no rate for its customer, or the VAT number cannot be right.
    """
    timezone = subsidiary.timezone
    today = local_date(now, timezone)
    periods = lifecycle.periods_to_reach(anchor, period, paid_periods, timezone, now)
    treatment = tax.determine(
        subsidiary=subsidiary, customer_country=country, vat_number=vat_number, on=today
    )
    paid_until = period.end(anchor, paid_periods + periods)
    ends = [paid_until] if treatment.until is None else [paid_until, treatment.until]
    return Quote(
        periods=periods,
        price=price,
        rate=treatment.rate,
        mention=treatment.mention,
        paid_until=paid_until,
        as_of=today,
        stands_until=local_midnight(min(ends), timezone),
    )
