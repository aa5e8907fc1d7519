"""What a person did past the fleet is said: it was done, or how a payment has ended."""

from dataclasses import replace

from starlette.responses import Response

from autorenew.console.context import BadInput, Values, Visit
from autorenew.console.filtering import chosen_in, filters_of
from autorenew.console.pages.failed import clock_of_database
from autorenew.console.pages.mending import SHOWN, start, tasks_of
from autorenew.console.rendering import page
from producers.control import failed as failures
from producers.control import stating
from producers.control.selection import Filters, TaskId
from producers.steps import CONVERGE, REFUND, STEPS, ByHand
from schemas.values import BulkKind

LONGEST_REFERENCE = 300


def _done(values: Values) -> Filters:
    """The services that were ticked, or all that match."""
    if values.get("scope") == "all":
        return replace(filters_of(values), step=CONVERGE)
    chosen = tasks_of(values)
    if not chosen or any(task.name != CONVERGE for task in chosen):
        raise BadInput("select failed services: nothing else is told as done by hand")
    return Filters(names=tuple(str(task.subject) for task in chosen), step=CONVERGE)


def confirm_done(visit: Visit) -> Response:
    filters = _done(visit.query)
    with visit.console.engine.begin() as tx:
        asked_at = clock_of_database(tx)
        total, tellable = stating.tellable(tx, filters)
        selection = failures.select(tx, filters, limit=SHOWN)
        listed = failures.with_actions(tx, selection.tasks)
    return page(
        visit, "confirm_done.html", total=total, tellable=tellable, listed=listed,
        asked_at=asked_at, chosen=chosen_in(visit.query), scope=visit.query.get("scope"),
        tasks=tasks_of(visit.query),
    )  # fmt: skip


def done(visit: Visit) -> Response:
    """Workers of the services' queues write it down; their database role may, the console's not."""
    visit.form.need("note", "why")
    return start(visit, BulkKind.DONE, _done(visit.form), all_at_once=True)


def _payment(values: Values) -> TaskId:
    """One alone: each has ended in its own way."""
    chosen = tasks_of(values)
    if len(chosen) != 1:
        raise BadInput("one payment is settled at a time: each has ended in its own way")
    step = STEPS.get(chosen[0].name)
    if step is None or step.by_hand is not ByHand.SETTLED:
        raise BadInput(f"a failed {chosen[0].name} is not settled by hand")
    return chosen[0]


def _filters(task: TaskId) -> Filters:
    return Filters(names=(str(task.subject),), step=task.name)


def settle_form(visit: Visit) -> Response:
    task = _payment(visit.query)
    with visit.console.engine.begin() as tx:
        asked_at = clock_of_database(tx)
        listed = failures.list_failed(tx, _filters(task))
    return page(
        visit, "settle.html", task=task, is_refund=task.name == REFUND, listed=listed,
        asked_at=asked_at, longest=LONGEST_REFERENCE,
    )  # fmt: skip


def settle(visit: Visit) -> Response:
    """A worker of the queue billing writes it down."""
    form = visit.form
    task = _payment(form)
    form.need("note", "why")
    reference = form.get("reference")
    not_taken = form.get("ended") == "not_taken"
    if task.name == REFUND and reference is None:
        raise BadInput("the reference of the payment is missing")
    if (reference is None) != not_taken:
        raise BadInput("say that nothing was taken, or the reference of what was")
    if reference is not None and len(reference) > LONGEST_REFERENCE:
        raise BadInput(f"a reference has at most {LONGEST_REFERENCE} characters")
    detail: dict[str, str | bool] = (
        {"not_taken": True} if reference is None else {"reference": reference}
    )
    if form.get("in_doubt") is not None:
        detail["in_doubt"] = True
    return start(visit, BulkKind.SETTLE, _filters(task), all_at_once=True, detail=detail)
