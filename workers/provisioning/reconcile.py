"""The task ``reconcile``: a driver's book is compared with the services that should be there, and
what differs is mended as far as is set."""

import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from producers.ledger import Claim, ClaimedTask, Failure, Outcome
from producers.steps import RECONCILE
from schemas.tables.bulk import Bulk
from workers.outside.attempts import DONE, Meaning, settle
from workers.outside.health import Health
from workers.provisioning import differences, mending
from workers.provisioning.differences import Found, Kind
from workers.provisioning.drivers.port import Driver
from workers.runtime.retries import RetryPolicy

log = logging.getLogger(__name__)

_DRIVERS = text("SELECT id, driver FROM reconciliations WHERE id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class EndedRow:
    driver: str
    outcome: str
    differences: dict[str, int]


_END = Bulk(
    EndedRow,
    """
    UPDATE reconciliations AS c SET ended_at = now(), outcome = r.outcome,
        differences = r.differences
    FROM json_to_recordset(CAST(:rows AS json)) AS r(driver text, outcome text, differences jsonb)
    WHERE c.driver = r.driver
    """,
)


@dataclass(frozen=True, slots=True)
class Look:
    """
    Attributes:
        engine: for short transactions of its own, between the pages of the book.
    """

    driver: str
    engine: Engine


class ReconcileHandler:
    name = RECONCILE
    immediate = False
    at_once: int | None = None

    def __init__(
        self,
        drivers: Mapping[str, Driver],
        *,
        mends: Collection[Kind],
        share: float,
        policy: RetryPolicy,
    ) -> None:
        self._drivers = drivers
        self._mends = frozenset(mends)
        self._share = share
        self._policy = policy
        mending.begin_counting(drivers)

    def begin(self, tx: Connection, claim: Claim) -> tuple[list[tuple[uuid.UUID, Look]], Outcome]:
        outcome = Outcome()
        calls = []
        known = {row.id: row.driver for row in tx.execute(_DRIVERS, {"ids": claim.subjects})}
        for subject in claim.subjects:
            name = known.get(subject)
            if name is None:
                outcome.done.append(subject)
            elif name not in self._drivers:
                outcome.failures.append(
                    Failure(subject, "no_such_driver", f"no URL is set for driver {name!r}")
                )
            else:
                calls.append((subject, Look(name, tx.engine)))
        return calls, outcome

    async def call(self, call: Look) -> Found:
        return await differences.look(
            call.engine, call.driver, self._drivers[call.driver], share=self._share
        )

    def health(self, call: Look, answer: Found) -> Health | None:
        if answer.outcome is differences.Outcome.UNAVAILABLE:
            return Health(False, answer.why or "")
        return None  # who can list may be unable to do anything: that closes no lane

    async def close(self) -> None:
        for driver in self._drivers.values():
            await driver.close()

    def record(
        self, tx: Connection, claim: Claim, answers: Sequence[tuple[uuid.UUID, Look, Found]]
    ) -> Outcome:
        ended = []
        for _, _, found in answers:
            mended = mending.mend(tx, found, self._mends)
            counts = mending.count(found, mended)
            ended.append(EndedRow(found.driver, found.outcome, counts))
            if found.outcome is not differences.Outcome.CLEAN:
                log.warning(
                    "driver %s: %s: %s", found.driver, found.outcome, found.why or dict(counts)
                )
        _END(tx, ended)

        def meaning(task: ClaimedTask, _call: Look, found: Found) -> Meaning:
            if found.outcome is differences.Outcome.UNAVAILABLE:
                return self._policy.decide(task, "book_unavailable", found.why or "")
            return DONE

        return settle(claim, answers, meaning)
