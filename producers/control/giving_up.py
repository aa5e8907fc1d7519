"""A failed task is given up in bulk: by a scheduler, on behalf of the operator who asked for it.

It ends as :func:`producers.control.failed.cancel` ends it. The scheduler itself may not touch what
the task is about: a function of the database does, and only for what the operation names. E-mails
and decisions are given up by their name.
"""

import uuid

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.control.failed import CannotCancel
from producers.control.selection import TaskId
from producers.history import Event
from producers.steps import PRICE, STEPS, Cancellation

_GIVE_UP = text("SELECT give_up_failed(:id, :number)")
_IN_BULK = (Cancellation.ORDER, Cancellation.PAYMENT, Cancellation.SERVICE)
_INSTEAD = "retry it, or see `autorenew failed show` for what else is possible"


def give_up(tx: Connection, bulk: uuid.UUID, number: int, task: TaskId) -> None:
    """Give one task of an operation up; what was paid for it is credited and refunded.

    Subjects are locked before their tasks.

    Raises:
        CannotCancel: the customer is owed it, it goes on by now, or it is given up by name only;
            the caller rolls back.
    """
    step = STEPS.get(task.name)
    if step is None or step.cancels is None:
        raise CannotCancel(f"the customer is owed the {task.name}: {_INSTEAD}")
    if step.cancels not in _IN_BULK:
        raise CannotCancel(f"a failed {task.name} is given up by its name: `failed cancel`")
    if not tx.execute(_GIVE_UP, {"id": bulk, "number": number}).scalar():
        raise CannotCancel(f"it does not wait for what could be given up: {_INSTEAD}")
    if task.name == PRICE:
        history.record(tx, [Event(task.subject, "order.cancelled", {"reason": "given_up"})])
    elif not ledger.retry(tx, task.name, [task.subject]):
        raise CannotCancel("it was tried again meanwhile")
    history.record(tx, [Event(task.subject, "task.cancelled", {"task": task.name})])
