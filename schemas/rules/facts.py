"""What is known of a service, as far as it matters to what is next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from schemas.clock import local_midnight
from schemas.rules.days import day_of, periods_after
from schemas.rules.notices import DEARER, End, Notice
from schemas.rules.policies import Policy
from schemas.values import Period, RenewalMode, ResourceState, ServiceState


@dataclass(frozen=True, slots=True)
class Cycle:
    """What has happened about the period after the expiry.

    Attributes:
        notices: each notice that was claimed -> when it was sent, None if not yet.
        refused: each of them that was refused for its recipient -> when.
        asked_at: the customer asked to renew now.
        requested: there is an open payment request for it.
        charging: a charge of that has begun and is not decided.
        method_changed: that is to be paid with another method than its customer's by now.
        basis_changed: that is taxed by another country or VAT number than its customer's by now,
            or was made before its subsidiary got another currency, time zone or country.
        declines: charges that were declined.
        stands_until: from when on the open payment request asks for the wrong amount, because
            more periods are needed or the tax rate is another one; None: it always stands.
        announced_at: when an e-mail last told the customer the amount.
        raised_at: when one last told an amount above the one that was told before it.
        dearer: how often it was found to cost more than was announced.
        dearer_at: when it was found so last.
    """

    notices: Mapping[Notice, datetime | None] = field(default_factory=dict)
    refused: Mapping[Notice, datetime] = field(default_factory=dict)
    asked_at: datetime | None = None
    requested: bool = False
    charging: bool = False
    method_changed: bool = False
    basis_changed: bool = False
    declines: int = 0
    declined_at: datetime | None = None
    last_declined_at: datetime | None = None
    stands_until: datetime | None = None
    announced_at: datetime | None = None
    raised_at: datetime | None = None
    dearer: int = 0
    dearer_at: datetime | None = None

    @property
    def is_to_be_told_more(self) -> bool:
        """It costs more than was announced, and no e-mail has said so yet."""
        if self.dearer_at is None or self.notices.get(Notice(DEARER, self.dearer)) is not None:
            return False
        return self.announced_at is None or self.announced_at <= self.dearer_at

    @property
    def cannot_be_told_more_since(self) -> datetime | None:
        """Since when that e-mail is known to be undeliverable; None: it may still tell."""
        refused_at = self.refused.get(Notice(DEARER, self.dearer))
        return refused_at if self.is_to_be_told_more else None

    def stands_at(self, moment: datetime) -> bool:
        """Whether the open payment request asks for the right amount then."""
        return self.stands_until is None or moment < self.stands_until

    def noticed_at(self, end: End, policy: Policy | None = None) -> datetime | None:
        """When the first notice of that end was sent; None: none was.

        Args:
            policy: count what cannot be delivered as given, from the day that it says.
        """
        told = (
            self.given_at(notice, policy)
            for notice in self.notices
            if end in notice.kind.counts_for
        )
        return min((at for at in told if at is not None), default=None)

    def given_at(self, notice: Notice, policy: Policy | None = None) -> datetime | None:
        """When a notice was sent, or counts as given; None: neither."""
        sent_at, refused_at = self.notices.get(notice), self.refused.get(notice)
        if sent_at is not None or refused_at is None or policy is None:
            return sent_at
        return refused_at + timedelta(days=policy.undeliverable)

    @property
    def told_at(self) -> datetime | None:
        """When the first e-mail about its renewal was sent, or was refused for its recipient."""
        told = (at for notice, at in self.refused.items() if End.UNPAID in notice.kind.counts_for)
        return min((*told, *filter(None, [self.noticed_at(End.UNPAID)])), default=None)


NOTHING_YET = Cycle()


@dataclass(frozen=True, slots=True)
class Service:
    """A service as far as it matters to what is next.

    Attributes:
        began_at: when its last paid period began.
        starts_at: when renewal is switched on for its brand and subsidiary; None: it is not.
        missing_contract: the version its customer has still to accept; None: nothing is missing.
        taken_over_at: when it came from another system.
        quiet_until: its customer was written to today; the next e-mail is not before this.
        is_free: its renewal costs nothing.
    """

    state: ServiceState
    desired: ResourceState
    mode: RenewalMode
    subsidiary: str
    timezone: str
    period: Period
    expires_at: datetime
    began_at: datetime
    starts_at: datetime | None
    missing_contract: int | None = None
    mode_changed_at: datetime | None = None
    suspended_at: datetime | None = None
    taken_over_at: datetime | None = None
    quiet_until: datetime | None = None
    is_free: bool = False
    cycle: Cycle = NOTHING_YET

    @property
    def is_suspended(self) -> bool:
        """And is to stay so: what is being resumed has been paid for."""
        return self.state is ServiceState.SUSPENDED and self.desired is ResourceState.SUSPENDED

    @property
    def is_asked(self) -> bool:
        """The customer asked for its renewal, and nothing stands in its way."""
        return self.cycle.asked_at is not None and self.missing_contract is None

    @property
    def expires_on(self) -> date:
        return day_of(self.expires_at, self.timezone)

    def day(self, days: int) -> datetime:
        """The local midnight so many days after the expiry."""
        return local_midnight(self.expires_on + timedelta(days=days), self.timezone)

    def behind_at(self, policy: Policy) -> datetime | None:
        """From when on it takes more periods to reach the future than are charged by itself; None:
        never. Counted from its expiry, which is never later than counted from its anchor."""
        if self.is_free:
            return None
        return periods_after(self.expires_on, self.period, policy.catch_up, self.timezone)

    def is_behind(self, policy: Policy, now: datetime) -> bool:
        """Renewed automatically otherwise, but so late that its customer has to decide."""
        behind_at = self.behind_at(policy)
        return self.mode is RenewalMode.AUTOMATIC and behind_at is not None and now >= behind_at
