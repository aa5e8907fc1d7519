"""A configuration that the far side refused is corrected, and its service is tried again."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, text

from producers import history
from producers.control import failed
from producers.control.selection import TaskId
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
