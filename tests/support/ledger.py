"""The ledger's protocol, step by step, for its tests."""

import uuid

from producers import ledger
from producers.ledger import (
    Claim,
    Outcome,
    Place,
    dispatching,
)
from tests.conftest import Database

HERE = Place("web", "driver:web")


class Ledger:
    """The protocol's steps, each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.engine = database.owner

    def enqueue(self, *subjects: uuid.UUID, place: Place = HERE, delay: float = 0.0) -> None:
        with self.engine.begin() as tx:
            ledger.enqueue(tx, "step", [(s, place) for s in subjects], delay=delay)

    def send(
        self, *, batch: int = 100, cap: int = 1000, horizon: float = 1e9
    ) -> list[tuple[uuid.UUID, list[uuid.UUID]]]:
        """Dispatch; the id of each message's batch, and the subjects in it."""
        with self.engine.begin() as tx:
            messages = dispatching.dispatch(
                tx, batch=lambda _: batch, cap=cap, rescue_seconds=30, horizon=horizon
            )
        query = "SELECT subjects FROM batches WHERE id = :id"
        sent = [(m.batch, list(self.database.value(query, id=m.batch) or [])) for m in messages]
        assert [m.size for m in messages] == [len(subjects) for _, subjects in sent]
        return sent

    def dispatch(self, *, batch: int = 100, cap: int = 1000) -> list[list[uuid.UUID]]:
        return [subjects for _, subjects in self.send(batch=batch, cap=cap)]

    def batch_of(self, subject: uuid.UUID) -> uuid.UUID:
        query = "SELECT id FROM batches WHERE :subject = ANY(subjects)"
        return uuid.UUID(str(self.database.value(query, subject=subject)))

    def claim(self, *batches: uuid.UUID, seconds: float = 60.0) -> Claim:
        with self.engine.begin() as tx:
            return ledger.claim(tx, "step", "web", batches, seconds=seconds)

    def take(self, subject: uuid.UUID, *_: uuid.UUID, seconds: float = 60.0) -> Claim:
        """Dispatch and claim the batch of ``subject``."""
        self.dispatch()
        return self.claim(self.batch_of(subject), seconds=seconds)

    def state(self, subject: uuid.UUID) -> str | None:
        """Of its batch, or of the task if it is in none."""
        query = """SELECT coalesce(b.state, t.state) FROM tasks AS t
                LEFT JOIN batches AS b ON t.subject = ANY(b.subjects) WHERE t.subject = :s"""
        value = self.database.value(query, s=subject)
        return str(value) if value else None

    def misplaced(self) -> list[uuid.UUID]:
        """Tasks that are not in exactly one batch while they say so, or in one otherwise."""
        query = """
            SELECT t.subject FROM tasks AS t LEFT JOIN batches AS b
              ON b.name = t.name AND t.subject = ANY(b.subjects)
            GROUP BY t.name, t.subject, t.batched
            HAVING count(b.id) <> CAST(t.batched AS integer)"""
        return [row[0] for row in self.database.all(query)]

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        with self.engine.begin() as tx:
            ledger.finish(tx, claim, outcome)

    def rescue(self) -> tuple[int, int]:
        with self.engine.begin() as tx:
            return dispatching.rescue(tx)

    def row(self, subject: uuid.UUID) -> dict[str, object] | None:
        query = """SELECT *, run_at <= now() AS due, extract(epoch FROM run_at - now()) AS wait
                FROM tasks WHERE subject = :subject"""
        rows = self.database.all(query, subject=subject)
        return dict(rows[0]._mapping) if rows else None


def subjects(count: int) -> list[uuid.UUID]:
    return sorted(uuid.uuid4() for _ in range(count))
