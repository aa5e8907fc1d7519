"""The task ``by_hand``: what an operator said of failed tasks, written down by the role that may.

Its subject is a bulk operation. Each of its tasks is written down by itself: one that cannot be is
left as it is, with why.
"""

import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, IntegrityError

from producers import history, ledger
from producers.control.stating import WRITTEN
from producers.history import Operator
from producers.ledger import Claim, Outcome
from producers.steps import BY_HAND, by_hand_place
from schemas.errors import AutorenewError, first_line

# In one transaction; each takes several statements.
AT_ONCE = 50

Write = Callable[[Connection, str, uuid.UUID, str | None, dict[str, Any]], None]
"""Writes down what was said of one task: its step and subject, why, and the operation's detail;
raises what it cannot."""

_OPERATION = text("SELECT kind, asked_by, note, detail FROM bulk_operations WHERE id = :id")
# Of the failure that the operator saw. What has ended meanwhile is no more than seen by whoever
# looks how the operation goes.
_NEXT = text("""
    SELECT b.number, b.name, b.subject FROM bulk_tasks AS b
    JOIN tasks AS t ON t.name = b.name AND t.subject = b.subject AND t.state = 'failed'
        AND (t.first_failed_at, t.total_attempts)
            IS NOT DISTINCT FROM (b.first_failed_at, b.total_attempts)
    WHERE b.bulk_id = :id AND b.state = 'sent' AND b.outcome IS NULL
    ORDER BY b.subject LIMIT :limit
""")
_ENDED = text("UPDATE bulk_tasks SET outcome = :said WHERE bulk_id = :id AND number = :number")


class ByHandHandler:
    """Args:
    write: for the steps of this role.
    """

    name = BY_HAND

    def __init__(self, write: Write) -> None:
        self._write = write

    def run(self, tx: Connection, claim: Claim) -> Outcome:
        for bulk in claim.subjects:
            self._operation(tx, claim.queue, bulk)
        return Outcome(done=claim.subjects)

    def _operation(self, tx: Connection, queue: str, bulk: uuid.UUID) -> None:
        asked = tx.execute(_OPERATION, {"id": bulk}).first()
        if asked is None:
            return
        tasks = tx.execute(_NEXT, {"id": bulk, "limit": AT_ONCE}).all()
        with history.acting(Operator(asked.asked_by, asked.note, bulk)):
            for task in tasks:
                said = WRITTEN
                try:
                    with tx.begin_nested():
                        self._write(tx, task.name, task.subject, asked.note, asked.detail or {})
                except (AutorenewError, IntegrityError, DataError) as error:
                    said = first_line(error).removeprefix(f"{task.subject} ")
                tx.execute(_ENDED, {"id": bulk, "number": task.number, "said": said})
        if len(tasks) == AT_ONCE:
            ledger.enqueue(tx, BY_HAND, [(bulk, by_hand_place(queue))])
