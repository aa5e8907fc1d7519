"""What becomes of imported services as things are: what an import would charge, before it does."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from schemas.clock import local_date
from schemas.rules import lifecycle, outlook
from schemas.rules.facts import Service
from schemas.rules.outlook import Decision
from schemas.rules.payable import PaymentMethod, obstacle
from schemas.rules.policies import Policy
from schemas.values import Money

# Any method, as long as it can be charged: what a decision is without regard to it.
_ANY_METHOD = PaymentMethod(UUID(int=0))


class Prospect(NamedTuple):
    """Services that have the same to come.

    Attributes:
        is_late: their first day of charging has passed: they are charged once their customers have
            been told, for as many periods as it takes to reach the future.
        net: of what is to be paid to renew them, in minor units.
    """

    decision: Decision
    is_late: bool
    currency: str
    services: int
    net: int


@dataclass(frozen=True, slots=True)
class Look:
    """What is true of all services that look alike, whatever they are paid with.

    Attributes:
        charged_on: the local day of the first charge, if they are charged by themselves.
    """

    decision: Decision
    is_late: bool
    charged_on: date

    @classmethod
    def of(cls, service: Service, policy: Policy, now: datetime) -> "Look":
        today = local_date(now, service.timezone)
        day = lifecycle.charge_day(service, policy, today)
        is_late = day == today
        if is_late:  # its customer has the days of a notice first
            day += timedelta(days=policy.notice)
        decision = outlook.forecast(service, policy, _ANY_METHOD, day if is_late else today)
        return cls(decision, is_late, day)


class Prospects:
    """Counts services as they arrive."""

    def __init__(self) -> None:
        self._counted: dict[tuple[Decision, bool, str], tuple[int, int]] = {}

    def add(
        self, look: Look, method: PaymentMethod | None, price: Money, periods: int, *, is_free: bool
    ) -> None:
        """Count a service.

        Args:
            price: net of one period.
            periods: how many it takes to reach the future.
        """
        decision = look.decision
        if (
            decision is Decision.WILL_RENEW
            and not is_free
            and obstacle(method, look.charged_on) is not None
        ):
            decision = Decision.UNDECIDED_PAYMENT
        key = decision, look.is_late, price.currency
        services, net = self._counted.get(key, (0, 0))
        self._counted[key] = services + 1, net + price.amount * periods

    def counted(self) -> list[Prospect]:
        """All of them: by currency, what is late first."""
        found = [Prospect(*key, *sums) for key, sums in self._counted.items()]
        order = list(Decision)
        return sorted(found, key=lambda p: (p.currency, not p.is_late, order.index(p.decision)))
