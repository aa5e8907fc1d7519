"""A configuration that the far side refused is corrected, and its service is tried again."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, text

from producers import history
from producers.control import failed
from producers.control.selection import FITS, Filters, TaskId, resolve
from producers.history import Event
from producers.steps import CONVERGE
from schemas.catalogue import Catalogue
from schemas.errors import AutorenewError
from schemas.messages import LineDocument
from schemas.rules import sellable


class CannotEdit(AutorenewError):
    """The configuration would be wrong, or is not one that was refused."""

    code = "cannot_edit"


@dataclass(frozen=True, slots=True)
class Edited:
    """A service's configuration, before and after."""

    before: dict[str, str]
    after: dict[str, str]


# As in a document of an order.
_CONFIGURATION: TypeAdapter[dict[str, str]] = TypeAdapter(
    LineDocument.model_fields["configuration"].rebuild_annotation()
)

CONFIGURATION = text("SELECT plan, configuration FROM services WHERE id = :id")
"""What it is before it is corrected."""

_SERVICE = text("""
    SELECT state, desired, plan, configuration FROM services WHERE id = :id FOR NO KEY UPDATE
""")
_FAILED = text("""
    SELECT 1 FROM tasks WHERE name = :name AND subject = :id AND state = 'failed' FOR UPDATE
""")
_IN_DOUBT = text("""
    SELECT kind FROM operations WHERE service_id = :id AND state IN ('pending', 'unknown') LIMIT 1
""")
# What is asked for in other words is another operation: it has another key.
_EDIT = text("""
    UPDATE services SET configuration = CAST(:configuration AS jsonb), generation = generation + 1
    WHERE id = :id
""")


def edit(
    tx: Connection, subject: uuid.UUID, changes: Mapping[str, str | None], catalogue: Catalogue
) -> Edited:
    """Change options of a service that could not be delivered, and try it again.

    It is checked as an order would be, against what its plan offers now.

    Args:
        changes: option -> value; None: without it.

    Raises:
        CannotEdit: an option is wrong; the service is delivered, or its task has not failed; or
            what was asked for last may have been done.
    """
    service = tx.execute(_SERVICE, {"id": subject}).first()
    if service is None:
        raise CannotEdit(f"{subject} is not a service")
    if service.state != "delivering" or service.desired == "absent":
        raise CannotEdit(
            f"{subject} is {service.state}: only what waits for its delivery can be corrected"
        )
    if tx.execute(_FAILED, {"name": CONVERGE, "id": subject}).first() is None:
        raise CannotEdit(f"{subject} has no failed {CONVERGE}; see `autorenew failed list`")
    if (doubt := tx.execute(_IN_DOUBT, {"id": subject}).scalar()) is not None:
        raise CannotEdit(
            f"the {doubt} of {subject} may have been done as it was ordered: retry it, so that the"
            " driver is asked"
        )
    before = dict(service.configuration)
    after = {k: v for k, v in (before | dict(changes)).items() if v is not None}
    _check(service.plan, before, after, changes, catalogue)
    tx.execute(_EDIT, {"id": subject, "configuration": json.dumps(after)})
    detail = {"before": before, "after": after}
    history.record(tx, [Event(subject, "service.edited", detail)])
    failed.retry(tx, [TaskId(CONVERGE, subject)])
    return Edited(before, after)


# Called by the scheduler, for what an operator's operation names.
_EDIT_IN_BULK = text("""
    SELECT e.problem, e.plan, e.before, e.after, o.detail AS changes
    FROM bulk_operations AS o CROSS JOIN LATERAL edit_failed(o.id, :number) AS e WHERE o.id = :id
""")


def edit_in_bulk(
    tx: Connection, bulk: uuid.UUID, number: int, task: TaskId, catalogue: Catalogue
) -> None:
    """Change what a bulk operation changes of one of its services, and try it again.

    Raises:
        CannotEdit: as :func:`edit`; the caller rolls back.
    """
    if task.name != CONVERGE:
        raise CannotEdit(f"a failed {task.name} has no configuration")
    row = tx.execute(_EDIT_IN_BULK, {"id": bulk, "number": number}).one()
    if row.problem is not None:
        raise CannotEdit(row.problem)
    _check(row.plan, row.before, row.after, row.changes, catalogue)
    detail = {"before": row.before, "after": row.after}
    history.record(tx, [Event(task.subject, "service.edited", detail)])
    if not failed.retry(tx, [task]):
        raise CannotEdit("it was tried again meanwhile")


_CONCERNED = text(f"""
    SELECT t.subject, s.plan, s.configuration,
        s.state <> 'delivering' OR s.desired = 'absent' AS is_past,
        EXISTS (SELECT FROM operations AS o
            WHERE o.service_id = s.id AND o.state IN ('pending', 'unknown')) AS is_in_doubt
    FROM tasks AS t JOIN services AS s ON s.id = t.subject
    WHERE t.state = 'failed' AND t.name = '{CONVERGE}' AND {FITS}
    ORDER BY t.run_at, t.subject
""")


_PLANS = text(f"""
    SELECT s.plan, count(*) AS services FROM tasks AS t JOIN services AS s ON s.id = t.subject
    WHERE t.state = 'failed' AND t.name = '{CONVERGE}' AND {FITS}
    GROUP BY s.plan ORDER BY services DESC, s.plan
""")


def plans(tx: Connection, filters: Filters) -> dict[str, int]:
    """The plans of the failed services that fit, and how many services of each, most first.

    Raises:
        UnknownName: a filter names nothing that is known.
        UnknownLane: it names no lane.
    """
    _, parameters = resolve(tx, filters)
    return {row.plan: row.services for row in tx.execute(_PLANS, parameters)}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why services would stay as they are.

    Attributes:
        services: how many.
        example: one of them.
    """

    problem: str
    services: int
    example: uuid.UUID


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What an edit of many services would do, as of now.

    Attributes:
        changed: how many would be changed, and retried.
        refused: the others by why, the most frequent first.
    """

    changed: int
    refused: tuple[Refusal, ...]

    @property
    def total(self) -> int:
        return self.changed + sum(refusal.services for refusal in self.refused)


def foresee(
    tx: Connection, filters: Filters, changes: Mapping[str, str | None], catalogue: Catalogue
) -> Foreseen:
    """What the same changes would do to every failed service that fits, without doing it.

    Raises:
        UnknownName: a filter names nothing that is known.
        UnknownLane: it names no lane.
    """
    _, parameters = resolve(tx, filters)
    refused: dict[str, list[uuid.UUID]] = {}
    changed = 0
    for row in tx.execute(_CONCERNED, parameters):
        problem = _problem(row, changes, catalogue)
        if problem is None:
            changed += 1
        else:
            refused.setdefault(problem, []).append(row.subject)
    by_number = sorted(refused.items(), key=lambda item: (-len(item[1]), item[0]))
    return Foreseen(changed, tuple(Refusal(why, len(ids), ids[0]) for why, ids in by_number))


def _problem(row: Any, changes: Mapping[str, str | None], catalogue: Catalogue) -> str | None:
    if row.is_past:
        return "it does not wait for its delivery any more"
    if row.is_in_doubt:
        return "it may have been done as it was ordered: retry it, so that the driver is asked"
    before = dict(row.configuration)
    after = {k: v for k, v in (before | dict(changes)).items() if v is not None}
    try:
        _check(row.plan, before, after, changes, catalogue)
    except CannotEdit as error:
        return f"{row.plan}: {error}"
    return None


def changes_of(sets: Sequence[tuple[str, str]], unsets: Sequence[str]) -> dict[str, str | None]:
    """Option -> value; None: without it.

    Raises:
        CannotEdit: an option is named twice, or none is.
    """
    changes: dict[str, str | None] = {}
    for option, value in [*((name, None) for name in unsets), *sets]:
        if option in changes:
            raise CannotEdit(f"{option} is set or unset more than once")
        changes[option] = value
    if not changes:
        raise CannotEdit("say what to change")
    return changes


def _check(
    code: str,
    before: Mapping[str, str],
    after: Mapping[str, str],
    changes: Mapping[str, str | None],
    catalogue: Catalogue,
) -> None:
    plan = catalogue.plan(code)
    if plan is None:
        raise CannotEdit(f"the plan {code} is gone: there is nothing to check the options against")
    try:
        _CONFIGURATION.validate_python(after)
    except ValidationError as error:
        said = (f"configuration.{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise CannotEdit("\n".join(said)) from None
    problems = list(sellable.of_options(plan, after))
    # Removing what is not there is a slip, too.
    problems += [
        sellable.Obstacle("option_unknown", f"configuration.{name}", "it is not set")
        for name, value in changes.items()
        if value is None and name not in before
    ]
    if problems:
        raise CannotEdit("\n".join(f"{o.code} at {o.about}: {o.message}" for o in problems))
    if after == before:
        raise CannotEdit("no change: the configuration is so already; `failed retry` tries again")
