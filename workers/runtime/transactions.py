"""A batch in the database: one transaction for all of it, and smaller ones where that fails."""

import logging
from collections.abc import Callable

from sqlalchemy import Connection, Engine

from producers.ledger import Claim, ClaimedTask, Failure, Outcome
from schemas.database import is_data_error, is_too_slow
from schemas.errors import AutorenewError, DataError, first_line
from workers.runtime.retries import RetryPolicy

log = logging.getLogger(__name__)

Run = Callable[[Connection, Claim], Outcome]
Finish = Callable[[Connection, Claim, Outcome], None]


class Transactions:
    """
    Args:
        slow: for a lone subject that takes too long.
    """

    def __init__(self, engine: Engine, slow: RetryPolicy) -> None:
        self._engine = engine
        self._slow = slow

    def run(
        self,
        claim: Claim,
        run: Run,
        finish: Finish,
        done: Callable[[Outcome], None],
    ) -> None:
        """Run a batch in one transaction; if its data is at fault, in another one, in parts; if it
        takes too long, in halves, each in a transaction of its own.

        Savepoints would spare the second transaction, and cost a lone task 0.5 ms each.

        Args:
            done: called after each commit.
        """
        try:
            outcome = self._in_one(claim, run, finish)
        except Exception as error:
            if not is_too_slow(error):
                raise
            if len(claim.tasks) == 1:
                outcome = self._too_slow(claim.tasks[0], error)
                with self._engine.begin() as tx:
                    finish(tx, claim, outcome)
            else:
                log.warning("%s: halve %d: %s", claim.name, len(claim.tasks), first_line(error))
                for half in _halves(claim):
                    self.run(half, run, finish, done)
                return
        done(outcome)

    def _in_one(self, claim: Claim, run: Run, finish: Finish) -> Outcome:
        try:
            with self._engine.begin() as tx:
                outcome = run(tx, claim)
                finish(tx, claim, outcome)
                return outcome
        except Exception as error:
            if not _is_subjects_fault(error):
                raise
        with self._engine.begin() as tx:
            outcome = self._bisect(tx, claim, run)
            finish(tx, claim, outcome)
            return outcome

    def _too_slow(self, task: ClaimedTask, error: Exception) -> Outcome:
        """A lone subject took too long: perhaps only now, so it is tried again, and counted."""
        log.warning("%s took too long: %s", task.subject, first_line(error))
        decision = self._slow.decide(task, "too_slow", first_line(error))
        if isinstance(decision, Failure):
            return Outcome(failures=[decision])
        return Outcome(retries=[decision])

    def _bisect(self, tx: Connection, claim: Claim, run: Run) -> Outcome:
        """Run a batch whose data is at fault: halve it until the bad one is alone."""
        try:
            with tx.begin_nested():
                return run(tx, claim)
        except Exception as error:
            if not _is_subjects_fault(error):
                raise
            if len(claim.tasks) == 1:
                task = claim.tasks[0]
                log.warning("%s %s failed: %s", claim.name, task.subject, first_line(error))
                reason = error.code if isinstance(error, AutorenewError) else "data"
                return Outcome(failures=[Failure(task.subject, reason, first_line(error))])
        whole = Outcome()
        for half in _halves(claim):
            part = self._bisect(tx, half, run)
            whole.done += part.done
            whole.again += part.again
            whole.retries += part.retries
            whole.failures += part.failures
        return whole


def _halves(claim: Claim) -> tuple[Claim, Claim]:
    middle = len(claim.tasks) // 2
    return claim.subset(claim.subjects[:middle]), claim.subset(claim.subjects[middle:])


def _is_subjects_fault(error: Exception) -> bool:
    return isinstance(error, DataError) or is_data_error(error)
