"""Has services converged again whose resource is not as it should be.

What the driver shows is written down as what it confirms, under a generation above all that it has
seen: so the service is converged from what is there, by the same steps as ever.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

from sqlalchemy import Connection

from monitoring import metrics
from producers import history, ledger
from producers.history import Event
from producers.steps import CONVERGE, driver_place
from schemas.tables.bulk import Bulk
from schemas.values import ResourceState, derived_id
from workers.provisioning.differences import MENDABLE, Difference, Found, Kind, Outcome
from workers.provisioning.drivers.port import (
    Driver,
    DriverAnswer,
    DriverState,
    Operation,
    OperationKind,
)

# Who rents an orphan, and as what.
NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class SeenRow:
    """What there is of a service.

    Attributes:
        generation: of ours, as it was compared.
        seen_generation: what the far side has.
    """

    id: uuid.UUID
    generation: int
    seen_generation: int
    confirmed: ResourceState
    until: date | None


# Unless it was changed since, or is under way by now. A name of what is gone names nothing.
_SEE = Bulk(
    SeenRow,
    """
    UPDATE services AS s SET confirmed = r.confirmed,
        confirmed_until = CASE r.confirmed WHEN 'absent' THEN NULL
            ELSE coalesce(r.until, s.confirmed_until) END,
        resource_id = CASE r.confirmed WHEN 'absent' THEN NULL ELSE s.resource_id END,
        generation = greatest(s.generation, r.seen_generation) + 1
    FROM json_to_recordset(CAST(:rows AS json)) AS r(
        id uuid, generation integer, seen_generation integer, confirmed text, until date)
    WHERE s.id = r.id AND s.generation = r.generation
      AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)
      AND NOT EXISTS (SELECT FROM operations AS o
        WHERE o.service_id = s.id AND o.state IN ('pending', 'unknown'))
    RETURNING s.id, s.universe, s.driver
    """,
)


def mend(
    tx: Connection,
    found: Found,
    kinds: Collection[Kind],
    *,
    orphans: Collection[str] = (),
    because: str = "reconciliation",
) -> list[Difference]:
    """Have converged again what differs.

    Args:
        kinds: of differences that are mended; others are only told.
        orphans: the driver's names of those resources of ended services that are to be ended.

    Returns:
        Those that are being mended.
    """
    chosen = list(_chosen(found, kinds, orphans))
    rows = _SEE(
        tx,
        (
            SeenRow(d.service, d.generation, d.seen.generation, d.seen.state, d.seen.paid_until)
            for d in sorted(chosen, key=lambda d: str(d.service))
            if d.service is not None
        ),
    ).all()
    ledger.enqueue(tx, CONVERGE, [(row.id, driver_place(row.universe, row.driver)) for row in rows])
    mended = {row.id for row in rows}
    done = [d for d in chosen if d.service in mended]
    history.record(
        tx,
        (Event(d.service, "resource.differs", _detail(d, because)) for d in done if d.service),
    )
    return done


@dataclass(frozen=True, slots=True)
class Ending:
    """What a driver answered.

    Attributes:
        is_begun: it was told to end it; False: it did not say what is there, and was not told.
    """

    answer: DriverAnswer
    is_begun: bool

    @property
    def is_ended(self) -> bool:
        """Whether it is gone, or about to be."""
        states = (DriverState.DONE, DriverState.IN_PROGRESS)
        return self.is_begun and self.answer.state in states

    def __str__(self) -> str:
        """What became of it, for people."""
        words = ": ".join(filter(None, (self.answer.reason, self.answer.words)))
        said = f"{self.answer.state}: {words}" if words else f"{self.answer.state}"
        match self.answer.state:
            case DriverState.DONE if self.is_begun:
                return "ended"
            case DriverState.IN_PROGRESS if self.is_begun:
                return f"is being ended: {said}"
            case DriverState.UNKNOWN if self.is_begun:
                return f"may or may not have been ended: {said}"
        if self.is_begun:
            return f"was not ended: {said}"
        return f"was not ended: the driver does not say what is there: {said}"


async def end_orphan(driver: Driver, orphan: Difference) -> Ending:
    """End a resource that is no service's: nobody but a person decides that.

    Its generation is above what the driver shows, so that nothing older revives it.
    """
    service = orphan.named_service
    operation = Operation(
        kind=OperationKind.TERMINATE,
        key="",
        generation=0,
        service_id=service,
        customer=NOBODY,
        plan=NOBODY,
        configuration={},
        paid_until=orphan.seen.paid_until or date.min,
        resource_id=orphan.resource_id,
    )
    seen = await driver.ask(operation)
    if seen.state is not DriverState.DONE:
        return Ending(seen, False)
    generation = (seen.resource.generation if seen.resource else 0) + 1
    key = str(derived_id("orphan", orphan.driver, orphan.resource_id, generation))
    answer = await driver.perform(replace(operation, key=key, generation=generation))
    return Ending(answer, True)


def _chosen(
    found: Found, kinds: Collection[Kind], orphans: Collection[str]
) -> Iterable[Difference]:
    if found.outcome is not Outcome.DIFFERENCES:
        return
    for d in found.differences:
        if d.service is None or d.why is not None:
            continue
        is_named = d.kind is Kind.ORPHAN and d.resource_id in orphans
        if is_named or (d.kind in MENDABLE and d.kind in kinds):
            yield d


def _detail(difference: Difference, because: str) -> dict[str, str | None]:
    seen, until = difference.seen, difference.seen.paid_until
    return {
        "difference": difference.kind,
        "was": difference.ours,
        "was_until": difference.ours_until.isoformat() if difference.ours_until else None,
        "seen": seen.state,
        "seen_until": until.isoformat() if until else None,
        "reason": because,
    }


def count(found: Found, mended: Sequence[Difference]) -> dict[str, int]:
    """Count them in the metrics; returns how many of each kind, and how many are mended."""
    metrics.reconciliations.labels(found.driver, found.outcome).inc()
    for kind, times in found.counts.items():
        metrics.reconciled_differences.labels(found.driver, kind).inc(times)
    metrics.mended_resources.labels(found.driver).inc(len(mended))
    return {kind.value: times for kind, times in sorted(found.counts.items())} | {
        "mended": len(mended)
    }


def begin_counting(drivers: Iterable[str]) -> None:
    """Counters begin at 0 with every label that is known."""
    for driver in drivers:
        for outcome in Outcome:
            metrics.reconciliations.labels(driver, outcome)
        for kind in Kind:
            metrics.reconciled_differences.labels(driver, kind)
        metrics.mended_resources.labels(driver)
