"""What waits for a person: failed tasks, and what may be done about each.

Every one may be tried again. Most may be given up (:func:`cancel`); what was done by hand, at the
infrastructure or at the gateway, is told with ``workers.by_hand``.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, TextClause, text

from producers import correlation, history, ledger
from producers.control import naming
from producers.control.naming import UnknownName
from producers.control.selection import (
    ALL,
    About,
    Filters,
    Selection,
    State,
    Task,
    TaskId,
    describe,
    find,
)
from producers.history import Event
from producers.renewals import next_steps
from producers.steps import CONVERGE, STEPS, ByHand, Cancellation
from schemas.catalogue import Catalogue
from schemas.errors import AutorenewError
from schemas.reasons import REASONS, FailureClass
from schemas.values import ResourceState, ServiceState


class CannotCancel(AutorenewError):
    code = "cannot_cancel"


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A failed task, and whom it is about."""

    task: Task
    about: About

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def subject(self) -> uuid.UUID:
        return self.task.subject

    @property
    def reason(self) -> str | None:
        return self.task.reason

    @property
    def error(self) -> str | None:
        return self.task.error

    @property
    def attempts(self) -> int:
        return self.task.attempts

    @property
    def queue(self) -> str:
        return self.task.queue

    @property
    def order_key(self) -> str | None:
        return self.about.order_key

    @property
    def plan(self) -> str | None:
        """Of the services it is about; several are joined by commas."""
        return ", ".join(self.about.plans) or None

    @property
    def actions(self) -> tuple[str, ...]:
        """What a person can do about it: the commands of ``autorenew failed``."""
        may = possible(self.name, self.about.state, self.about.desired)
        # What may have been done as it was ordered is asked about first.
        is_in_doubt = REASONS.get(self.reason or "") is FailureClass.UNKNOWN
        is_editable = self.name == CONVERGE and "cancel" in may and not is_in_doubt
        return ("retry", *(["edit"] if is_editable else []), *may)


def possible(name: str, state: str | None, desired: str | None) -> tuple[str, ...]:
    """What can be done about a failed task beside trying it again.

    Args:
        state, desired: of the service it is about, if it is about one.
    """
    step = STEPS.get(name)
    if step is None:
        return ()
    is_owed = state == ServiceState.DELIVERING and desired != ResourceState.ABSENT
    may_cancel = step.cancels is not None and (name != CONVERGE or is_owed)
    by_hand = None if name == CONVERGE and is_owed else step.by_hand
    return (*(["cancel"] if may_cancel else ()), *([by_hand.value] if by_hand else ()))


def select(
    tx: Connection, filters: Filters = ALL, *, limit: int | None = None, skip: int = 0
) -> Selection:
    """Failed tasks; see :func:`producers.control.selection.find`."""
    return find(tx, replace(filters, states=frozenset({State.FAILED})), limit=limit, skip=skip)


def one_subject(tx: Connection, name: str, *, upstream: str | None = None) -> uuid.UUID:
    """The one subject that is called so; of several, the one that has a failed task; where none
    has, the only service among them.

    Raises:
        UnknownName: there is none, or several; it says what each of them is.
    """
    subjects = naming.subjects_of(tx, name, upstream=upstream)
    if len(subjects) == 1:
        return next(iter(subjects))
    rows = tx.execute(_FAILED, {"subjects": list(subjects)})
    failing: list[uuid.UUID] = sorted({task.subject for task in rows})
    if len(failing) == 1:
        return failing[0]
    several = failing or sorted(subjects)
    what = describe(tx, [TaskId("", subject) for subject in several])
    services = [subject for subject in several if what[subject].kind == "service"]
    if not failing and len(services) == 1:
        return services[0]
    listed = "".join(f"\n  {what[one].kind or 'task'} {one}" for one in several[:10])
    more = f"\n  and {len(several) - 10} more" if len(several) > 10 else ""
    none = "" if failing else ", none of which has a failed task"
    raise UnknownName(f"{name!r} means several things{none}: name one of{listed}{more}")


_LINES = text("SELECT name, lines FROM tasks WHERE subject = :subject AND lines IS NOT NULL")


def last_lines(tx: Connection, subject: uuid.UUID) -> dict[str, list[str]]:
    """What was logged last about the failed attempts of a subject's tasks, by their step.

    Each line begins with its time, UTC; secrets are left out.
    """
    return {row.name: row.lines for row in tx.execute(_LINES, {"subject": subject})}


def about(tx: Connection, subject: uuid.UUID) -> About:
    """Whom a subject is about."""
    return describe(tx, [TaskId("", subject)])[subject]


def list_failed(
    tx: Connection, filters: Filters = ALL, *, limit: int | None = 1000
) -> list[FailedTask]:
    """Failed tasks, and what can be done about each."""
    return with_actions(tx, select(tx, filters, limit=limit).tasks)


def with_actions(tx: Connection, tasks: Sequence[Task]) -> list[FailedTask]:
    about = describe(tx, tasks)
    return [FailedTask(task, about[task.subject]) for task in tasks]


_FAILED = text("""
    SELECT name, subject FROM tasks
    WHERE state = 'failed' AND subject = ANY(:subjects)
    ORDER BY name, subject
""")


def names_of(tx: Connection, subject: uuid.UUID) -> list[str]:
    """The failed tasks of a subject."""
    return [task.name for task in tx.execute(_FAILED, {"subjects": [subject]})]


class Named(Protocol):
    """A task by its step and its subject."""

    @property
    def name(self) -> str: ...
    @property
    def subject(self) -> uuid.UUID: ...


def retry(tx: Connection, tasks: Iterable[Named]) -> list[TaskId]:
    """Try these failed tasks again, from their first attempt; no other tasks of their subjects.

    Returns:
        Those that had failed still.
    """
    by_name: dict[str, list[uuid.UUID]] = {}
    for task in tasks:
        by_name.setdefault(task.name, []).append(task.subject)
    tried = [
        TaskId(name, subject)
        for name, subjects in sorted(by_name.items())
        for subject in ledger.retry(tx, name, subjects)
    ]
    history.record(tx, (Event(t.subject, "task.retried", {"task": t.name}) for t in tried))
    correlation.tell_retried(tx, [t.subject for t in tried])
    return tried


_GIVE_UP_SERVICE = text("""
    UPDATE services SET desired = 'absent', generation = generation + 1
    WHERE id = :id AND state = 'delivering' AND desired <> 'absent'
    RETURNING id
""")

_CANCEL_ORDER = text("""
    UPDATE orders SET state = 'cancelled', reason = 'given_up', ended_at = now()
    WHERE id = :id AND state = 'accepted' RETURNING id
""")

# The charge decides: what may have been taken is asked about before the request is voided.
_GIVE_UP_ORDER = text("""
    UPDATE orders AS o SET reason = 'given_up' FROM payment_requests AS r
    WHERE r.id = :id AND o.id = r.order_id AND o.state = 'priced' RETURNING o.id
""")
# Likewise: once nothing may have been taken, this attempt counts as declined.
_GIVE_UP_CHARGE = text("""
    UPDATE payment_requests SET given_up_at = now() WHERE id = :id AND order_id IS NULL RETURNING id
""")

_STILL_FAILED = text("""
    SELECT 1 FROM tasks WHERE name = :name AND subject = :id AND state = 'failed' FOR UPDATE
""")

_DROP = text("DELETE FROM tasks WHERE name = :name AND subject = :id")

_INSTEAD = {
    ByHand.DONE: "retry it; or do it at the infrastructure, and then `autorenew failed done`",
    ByHand.SETTLED: "retry it; or pay it back otherwise, and then `autorenew failed settle`",
}


def cancel(
    tx: Connection,
    subject: uuid.UUID,
    catalogue: Catalogue,
    now: datetime,
    *,
    steps: Collection[str] | None = None,
) -> None:
    """Give a failed subject up; what was paid for it is credited and refunded.

    Args:
        steps: only these of its failed tasks; None: all.

    Raises:
        CannotCancel: it has not failed, it goes on by now, or the customer is owed it; it says
            what can be done instead.
    """
    failed = tx.execute(_FAILED, {"subjects": [subject]}).all()
    tasks = [task for task in failed if steps is None or task.name in steps]
    if not tasks:
        raise CannotCancel(f"{subject} has no failed task; see `autorenew failed list`")
    for name, _ in tasks:
        step = STEPS.get(name)
        if step is None or step.cancels is None:
            instead = _INSTEAD[step.by_hand] if step and step.by_hand else "retry it"
            raise CannotCancel(f"the customer is owed the {name} of {subject}: {instead}")
        _CANCELLING[step.cancels](tx, name, subject, catalogue, now)
    history.record(tx, [Event(subject, "task.cancelled", {"task": task.name}) for task in tasks])


def _hold(tx: Connection, name: str, subject: uuid.UUID) -> None:
    """Hold its task. Subjects are locked before their tasks."""
    if tx.execute(_STILL_FAILED, {"name": name, "id": subject}).first() is None:
        raise CannotCancel(f"{subject} was tried again meanwhile")


def _drop(tx: Connection, name: str, subject: uuid.UUID) -> None:
    tx.execute(_DROP, {"name": name, "id": subject})


def _change(tx: Connection, changes: Sequence[TextClause], subject: uuid.UUID, what: str) -> None:
    """Make the first change that applies."""
    if all(tx.execute(change, {"id": subject}).first() is None for change in changes):
        raise CannotCancel(f"{subject} is not {what}")


def _cancel_order(tx: Connection, name: str, subject: uuid.UUID, *_: object) -> None:
    _change(tx, [_CANCEL_ORDER], subject, "an order that waits for its price")
    _hold(tx, name, subject)
    _drop(tx, name, subject)
    history.record(tx, [Event(subject, "order.cancelled", {"reason": "given_up"})])


def _give_up_payment(tx: Connection, name: str, subject: uuid.UUID, *_: object) -> None:
    changes = [_GIVE_UP_ORDER, _GIVE_UP_CHARGE]
    _change(tx, changes, subject, "a payment request of a renewal, or of an order that is not paid")
    _hold(tx, name, subject)
    ledger.retry(tx, name, [subject])


def _give_up_service(tx: Connection, name: str, subject: uuid.UUID, *_: object) -> None:
    if tx.execute(_GIVE_UP_SERVICE, {"id": subject}).first() is None:
        raise CannotCancel(
            f"{subject} is not a service that waits for its delivery: {_INSTEAD[ByHand.DONE]}"
        )
    _hold(tx, name, subject)
    ledger.retry(tx, name, [subject])


_TOLD = text("SELECT service_id, kind FROM notices WHERE email_id = :id ORDER BY service_id, kind")
_EMAIL = text("SELECT begun_at FROM emails WHERE id = :id AND sent_at IS NULL FOR NO KEY UPDATE")
_GIVE_UP_EMAIL = text("""
    UPDATE emails SET refused_at = coalesce(refused_at, :now), given_up_at = :now WHERE id = :id
""")
_RELEASE = text("DELETE FROM notices WHERE email_id = :id")


def _give_up_email(
    tx: Connection, name: str, subject: uuid.UUID, catalogue: Catalogue, now: datetime
) -> None:
    """An e-mail that was tried counts as one that cannot be delivered. One that could never be
    written counts for nothing: what is due of it is claimed anew."""
    told: dict[uuid.UUID, list[str]] = {}
    for row in tx.execute(_TOLD, {"id": subject}):
        told.setdefault(row.service_id, []).append(row.kind)
    next_steps.lock(tx, told)
    email = tx.execute(_EMAIL, {"id": subject}).first()
    if email is None:
        raise CannotCancel(f"{subject} is not an e-mail that waits to be sent")
    _hold(tx, name, subject)
    if email.begun_at is None:
        happened = "notice.released"
        tx.execute(_RELEASE, {"id": subject})
    else:
        happened = "notice.refused"
        tx.execute(_GIVE_UP_EMAIL, {"id": subject, "now": now})
    _drop(tx, name, subject)
    next_steps.decide_again(tx, told, catalogue, now)
    history.record(
        tx,
        (
            Event(service, happened, {"kinds": kinds, "reason": "given_up"})
            for service, kinds in told.items()
        ),
    )


_GIVE_UP_TELLING = text("""
    UPDATE order_emails SET refused_at = coalesce(refused_at, :now), given_up_at = :now
    WHERE order_id = :id AND sent_at IS NULL AND given_up_at IS NULL RETURNING order_id
""")


def _give_up_telling(
    tx: Connection, name: str, subject: uuid.UUID, _catalogue: Catalogue, now: datetime
) -> None:
    """What else became of the order is told in the next e-mail."""
    parameters = {"id": subject, "now": now}
    if tx.execute(_GIVE_UP_TELLING, parameters).first() is None:
        raise CannotCancel(f"no e-mail about the order {subject} waits to be sent: retry it")
    _hold(tx, name, subject)
    ledger.retry(tx, name, [subject])
    history.record(tx, [Event(subject, "delivery.refused", {"reason": "given_up"})])


_GIVE_UP_EVENT = text("""
    UPDATE webhook_deliveries SET ended_at = now(), outcome = 'dropped', body = NULL
    WHERE id = :id AND ended_at IS NULL
""")


def _give_up_event(tx: Connection, name: str, subject: uuid.UUID, *_: object) -> None:
    tx.execute(_GIVE_UP_EVENT, {"id": subject})
    _hold(tx, name, subject)
    _drop(tx, name, subject)


_CONCERNED = text("SELECT id FROM services WHERE id = :id OR next_subject = :id ORDER BY id")


def _decide_anew(
    tx: Connection, name: str, subject: uuid.UUID, catalogue: Catalogue, now: datetime
) -> None:
    """Drop what its services do not need any more."""
    ids = list(tx.execute(_CONCERNED, {"id": subject}).scalars())
    next_steps.lock(tx, ids)
    services = next_steps.load(tx, ids, catalogue)
    for service in services:
        next_ = service.next_step(now)
        is_due = next_ is not None and next_.step == name and next_.at <= now
        if is_due or (service.view.desired is ResourceState.ABSENT and service.request_id):
            raise CannotCancel(
                f"the {name} of {service.id} is due: retry it, or change what makes it due, such as"
                " with `autorenew service stop`, `mode` or `end`"
            )
    _hold(tx, name, subject)
    _drop(tx, name, subject)
    next_steps.decide(tx, services, now)


_CANCELLING: dict[
    Cancellation, Callable[[Connection, str, uuid.UUID, Catalogue, datetime], None]
] = {
    Cancellation.ORDER: _cancel_order,
    Cancellation.PAYMENT: _give_up_payment,
    Cancellation.SERVICE: _give_up_service,
    Cancellation.EMAIL: _give_up_email,
    Cancellation.TELLING: _give_up_telling,
    Cancellation.EVENT: _give_up_event,
    Cancellation.DECISION: _decide_anew,
}
