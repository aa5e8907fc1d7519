"""Life-cycle policies: when customers are reminded, charged, suspended and ended, as data."""

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from schemas.values import Period


class ReminderRule(NamedTuple):
    """Days before expiry for one subsidiary and period; None: any.

    Attributes:
        since: the first expiry that it holds for; None: it always did.
        source: the law it follows, or whoever decided it.
    """

    subsidiary: str | None
    period: Period | None
    days: tuple[int, ...]
    since: date | None = None
    source: str | None = None

    def fits(self, subsidiary: str, period: Period, expires_on: date) -> bool:
        here = self.subsidiary in (None, subsidiary) and self.period in (None, period)
        return here and (self.since is None or self.since <= expires_on)


FRENCH_YEARS = ReminderRule(
    "FR",
    Period(12),
    (60, 30, 15, 7, 3, 1),
    # In force since the ordonnance 2016-301: announced between three months and one month before.
    since=date(2016, 7, 1),
    source="Code de la consommation, L215-1",
)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a plan's services renew and end. Days count from the expiry, before it negative.

    Attributes:
        reminders: days *before* expiry, the first one first.
        reminders_for: exceptions; the first that fits is taken.
        charges: when the payment is asked for and charged, and when that is tried again.
        suspend: days after expiry when unpaid; None: no grace, it ends at expiry.
        terminate: days after expiry when still unpaid.
        stop_reminder: days before expiry of the one reminder of what ends as its customer asked.
        notice: days that an end, or a charge of more than was announced, needs from its first
            notice, unless the customer asked for it.
        undeliverable: days after which a notice that was refused for its recipient, and not sent
            since, counts as given.
        catch_up: periods that are charged together at most, by itself, where one would not reach
            the future; beyond that the customer decides.
        source: the law or the decision that these numbers follow; None: our own choice.
    """

    code: str = "default"
    reminders: tuple[int, ...] = (30, 15, 7, 3, 1)
    reminders_for: tuple[ReminderRule, ...] = (FRENCH_YEARS,)
    charges: tuple[int, ...] = (-3, -1, 0, 3, 5)
    suspend: int | None = 5
    terminate: int = 30
    stop_reminder: int = 7
    notice: int = 7
    undeliverable: int = 14
    catch_up: int = 2
    source: str | None = None

    def reminder_days(self, subsidiary: str, period: Period, expires_on: date) -> tuple[int, ...]:
        """Days before an expiry on which a customer is reminded, the first one first."""
        for rule in self.reminders_for:
            if rule.fits(subsidiary, period, expires_on):
                return rule.days
        return self.reminders


DEFAULT_POLICY = Policy()
