"""Configurations that were refused are corrected: of one service, or of many in bulk."""

import uuid
from dataclasses import dataclass, replace

from starlette.responses import Response

from autorenew.console.context import BadInput, Values, Visit
from autorenew.console.filtering import chosen_in, filters_of
from autorenew.console.pages.failed import clock_of_database
from autorenew.console.pages.mending import start, tasks_of
from autorenew.console.rendering import page
from autorenew.console.routing import see
from producers.control import bulk, editing
from producers.control import failed as failures
from producers.control.selection import Filters
from producers.steps import CONVERGE
from schemas.catalogue import Catalogue
from schemas.values import BulkKind

SHOWN = 20
_SETS, _WITHOUT = "set.", "without."


def edit_form(visit: Visit) -> Response:
    """The options of a service that was refused, with what its plan says of each."""
    return _edit_page(visit, {})


def _edit_page(visit: Visit, entered: dict[str, str], problem: str | None = None) -> Response:
    subject = _subject(visit)
    with visit.console.engine.begin() as tx:
        there = failures.list_failed(tx, Filters(names=(str(subject),)))
        row = tx.execute(editing.CONFIGURATION, {"id": subject}).first()
        if row is None:
            raise BadInput(f"{subject} is not a service")
        plan = visit.console.catalogue.current(tx).plan(row.plan)
    options = {**dict.fromkeys(plan.options if plan else ()), **row.configuration}
    return page(
        visit, "edit.html", subject=subject, plan=plan, code=row.plan, listed=there,
        options={name: entered.get(name, row.configuration.get(name, "")) for name in options},
        before=row.configuration, problem=problem, note=visit.form.get("note") or "",
        status=422 if problem else 200,
    )  # fmt: skip


def edit(visit: Visit) -> Response:
    """Correct what was refused, and try it again."""
    subject = _subject(visit)
    entered = {
        name.removeprefix("option."): (values[-1].strip() if values else "")
        for name, values in visit.form.fields.items()
        if name.startswith("option.")
    }
    if visit.form.get("note") is None:
        return _edit_page(visit, entered, "Say why: it is kept in the history.")
    console = visit.console
    try:
        with console.engine.begin() as tx:
            row = tx.execute(editing.CONFIGURATION, {"id": subject}).first()
            before = dict(row.configuration) if row else {}
            changes: dict[str, str | None] = {
                name: value or None
                for name, value in entered.items()
                if (value or None) != before.get(name)
            }
            editing.edit(tx, subject, changes, console.catalogue.current(tx))
    except editing.CannotEdit as error:
        return _edit_page(visit, entered, str(error))
    return see(f"/failed/task/{subject}?edited=1")


def _subject(visit: Visit) -> uuid.UUID:
    try:
        return uuid.UUID(visit.path["subject"])
    except ValueError:
        raise BadInput("that is no id") from None


@dataclass(frozen=True, slots=True)
class Offered:
    """An option that a plan of the catalogue offers.

    Attributes:
        values: of all plans that offer it; empty: free text.
        plans: that offer it.
    """

    name: str
    values: tuple[str, ...]
    plans: tuple[str, ...]


def offered(catalogue: Catalogue, plans: set[str]) -> list[Offered]:
    """The options of these plans."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for code in sorted(plans):
        plan = catalogue.plan(code)
        for name, option in (plan.options if plan else {}).items():
            found.setdefault(name, {})[code] = option.values
    return [
        Offered(
            name,
            tuple(dict.fromkeys(v for values in of.values() for v in values))
            if all(of.values())
            else (),
            tuple(of),
        )
        for name, of in sorted(found.items())
    ]


def _meant(visit: Visit, values: Values) -> Filters:
    """The services that were ticked, or all that match."""
    if values.get("scope") == "all":
        return replace(filters_of(values), step=CONVERGE)
    chosen = [task for task in tasks_of(values) if task.name == CONVERGE]
    if not chosen:
        raise BadInput("no service was selected: only a failed converge has a configuration")
    return Filters(names=tuple(str(task.subject) for task in chosen), step=CONVERGE)


def _changes(values: Values) -> dict[str, str | None]:
    sets = [
        (name.removeprefix(_SETS), said)
        for name in values.fields
        if name.startswith(_SETS) and (said := values.get(name)) is not None
    ]
    without = [
        name.removeprefix(_WITHOUT)
        for name in values.fields
        if name.startswith(_WITHOUT) and values.get(name) is not None
    ]
    return editing.changes_of(sets, without)


def bulk_form(visit: Visit) -> Response:
    """What would be changed of many services: which options, and once that is said, of how many."""
    filters = _meant(visit, visit.query)
    problem, foreseen, changes = None, None, dict[str, str | None]()
    with visit.console.engine.begin() as tx:
        asked_at = clock_of_database(tx)
        catalogue = visit.console.catalogue.current(tx)
        plans = editing.plans(tx, filters)
        if any(name.startswith((_SETS, _WITHOUT)) for name in visit.query.fields):
            try:
                changes = _changes(visit.query)
                foreseen = editing.foresee(tx, filters, changes, catalogue)
            except editing.CannotEdit as error:
                problem = str(error)
        selection = failures.select(tx, filters, limit=SHOWN)
        listed = failures.with_actions(tx, selection.tasks)
    return page(
        visit, "edit_many.html", plans=plans, options=offered(catalogue, set(plans)),
        total=selection.total, listed=listed, foreseen=foreseen, changes=changes, problem=problem,
        asked_at=asked_at, chosen=chosen_in(visit.query), scope=visit.query.get("scope"),
        tasks=tasks_of(visit.query), least_rate=bulk.LEAST_RATE, status=422 if problem else 200,
    )  # fmt: skip


def edit_many(visit: Visit) -> Response:
    """Have it done, as a bulk operation."""
    form = visit.form
    form.need("note", "why")
    return start(
        visit, BulkKind.EDIT, _meant(visit, form), detail=_changes(form),
        all_at_once=form.get("all_at_once") is not None,
    )  # fmt: skip
