"""What a retry of a service would call, and what may exist of it at the infrastructure."""

import uuid
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, text

from schemas.catalogue import Catalogue
from schemas.clock import local_date
from schemas.values import Period, ResourceState
from workers.provisioning.drivers.port import OperationKind
from workers.provisioning.operations import missing_operation

_READ = text("""
    SELECT s.subsidiary, s.driver, s.configuration, s.period_months, s.anchor, s.paid_periods,
        s.desired, s.confirmed, s.confirmed_until, s.resource_id, s.generation,
        d.kind AS doubted, d.started_at AS doubted_since, l.kind AS last, l.state AS last_state,
        l.reason AS last_reason,
        h.created > h.terminated OR s.confirmed <> 'absent' AS may_exist
    FROM services AS s
    LEFT JOIN LATERAL (
        SELECT o.kind, o.started_at FROM operations AS o
        WHERE o.service_id = s.id AND o.state IN ('pending', 'unknown')
        ORDER BY o.generation DESC, o.started_at DESC LIMIT 1
    ) AS d ON true
    LEFT JOIN LATERAL (
        SELECT o.kind, o.state, o.reason FROM operations AS o WHERE o.service_id = s.id
        ORDER BY o.generation DESC, o.started_at DESC LIMIT 1
    ) AS l ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(max(o.generation) FILTER (WHERE o.kind = 'create'), 0) AS created,
            coalesce(max(o.generation) FILTER (
                WHERE o.kind = 'terminate' AND o.state = 'done'), 0) AS terminated
        FROM operations AS o WHERE o.service_id = s.id
    ) AS h
    WHERE s.id = :id
""")


@dataclass(frozen=True, slots=True)
class Outlook:
    """
    Attributes:
        configuration: what the customer chose, option -> value; what the driver is asked for.
        next: what would be called next; None: nothing is missing.
        asks_first: the driver is asked before, since what was begun may have been done.
        in_doubt, in_doubt_since: what was begun and never decided.
        confirmed, confirmed_until: what the driver last said there is.
        may_exist: something may be there, whatever was confirmed.
        last, last_state, last_reason: the newest operation, and how it stands.
    """

    driver: str
    configuration: dict[str, str]
    next: OperationKind | None
    asks_first: bool
    in_doubt: OperationKind | None
    in_doubt_since: datetime | None
    desired: ResourceState
    confirmed: ResourceState
    confirmed_until: date | None
    resource_id: str | None
    generation: int
    may_exist: bool
    last: OperationKind | None
    last_state: str | None
    last_reason: str | None

    def __str__(self) -> str:
        """What would be called, as a sentence."""
        if self.next is None:
            return "nothing: it is as it should be"
        first = "asks first, then " if self.asks_first else ""
        return f"{first}{self.next} by driver {self.driver}, generation {self.generation}"

    @property
    def over_there(self) -> str:
        """What may be at the infrastructure, as a sentence."""
        what = f"resource {self.resource_id}" if self.resource_id else "a resource"
        if self.confirmed is not ResourceState.ABSENT:
            until = f" until {self.confirmed_until}" if self.confirmed_until else ""
            said = f"{what}, confirmed as {self.confirmed}{until}"
        elif not self.may_exist:
            said = "nothing: no create was ever begun"
            said = "nothing: its end was confirmed" if self.last else said
        elif self.in_doubt:
            said = f"perhaps {what}"
        else:
            said = f"nothing by what the driver said: {self.last} {self.last_state}"
            said += f" ({self.last_reason})" if self.last_reason else ""
        if self.in_doubt:
            said += (
                f"; {self.in_doubt} was begun {self.in_doubt_since:%F %H:%M} UTC and not decided"
            )
        return said


def outlook(
    tx: Connection, service: uuid.UUID, catalogue: Catalogue, now: datetime
) -> Outlook | None:
    """What converging a service would do now; None: there is no such service.

    Nothing is locked and nothing is asked.
    """
    row = tx.execute(_READ, {"id": service}).first()
    if row is None:
        return None
    anchor = row.anchor or local_date(now, catalogue.subsidiary(row.subsidiary).timezone)
    in_doubt = OperationKind(row.doubted) if row.doubted else None
    next_ = missing_operation(
        ResourceState(row.desired),
        ResourceState(row.confirmed),
        paid_until=Period(row.period_months).end(anchor, row.paid_periods),
        confirmed_until=row.confirmed_until,
        in_doubt=in_doubt,
        may_exist=row.may_exist,
    )
    return Outlook(
        driver=row.driver,
        configuration=dict(row.configuration),
        next=next_,
        asks_first=in_doubt is not None,
        in_doubt=in_doubt,
        in_doubt_since=row.doubted_since,
        desired=ResourceState(row.desired),
        confirmed=ResourceState(row.confirmed),
        confirmed_until=row.confirmed_until,
        resource_id=row.resource_id,
        generation=row.generation,
        may_exist=row.may_exist,
        last=OperationKind(row.last) if row.last else None,
        last_state=row.last_state,
        last_reason=row.last_reason,
    )
