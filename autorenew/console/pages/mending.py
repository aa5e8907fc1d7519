"""Failed tasks are retried, or given up: first it is said what will happen."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response

from autorenew.console.context import BadInput, Values, Visit
from autorenew.console.filtering import chosen_in, filters_of, moment_of
from autorenew.console.pages.failed import clock_of_database
from autorenew.console.rendering import counted, page
from autorenew.console.routing import see
from producers.control import bulk, lanes
from producers.control import failed as failures
from producers.control.groups import groups, paid_for
from producers.control.selection import Filters, TaskId
from schemas.errors import AutorenewError
from schemas.values import BulkKind, Money

MOST_CHOSEN = 200
SHOWN = 20
_FASTEST = 1e6


def _kind(values: Values) -> BulkKind:
    kind = values.need("action", "what to do")
    if kind not in (BulkKind.RETRY, BulkKind.CANCEL):
        raise BadInput("it can be retried, or given up")
    return BulkKind(kind)


def tasks_of(values: Values) -> list[TaskId]:
    """What was ticked: ``STEP:ID``."""
    chosen = []
    for said in dict.fromkeys(values.all("task")):
        name, _, subject = said.partition(":")
        try:
            chosen.append(TaskId(name, uuid.UUID(subject)))
        except ValueError:
            raise BadInput(f"{said!r} is not a task") from None
    if len(chosen) > MOST_CHOSEN:
        raise BadInput(f"at most {MOST_CHOSEN} at once; filter, and take all that match")
    return chosen


def confirm(visit: Visit) -> Response:
    """What exactly would be done, before it is: to those that were ticked, or to all that match."""
    kind = _kind(visit.query)
    if visit.query.get("scope") == "all":
        return _confirm_all(visit, kind)
    chosen = tasks_of(visit.query)
    if not chosen:
        raise BadInput("nothing was selected: tick some tasks, or take all that match")
    with visit.console.engine.begin() as tx:
        names = tuple(str(task.subject) for task in chosen)
        there = failures.with_actions(tx, failures.select(tx, Filters(names=names)).tasks)
        listed = [one for one in there if one.task.id in set(chosen)]
        paid = _paid(tx, kind, Filters(names=names))
        paused = sorted({one.task.lane for one in listed if one.task.is_lane_paused})
    return page(
        visit, "confirm_chosen.html", kind=kind, chosen=chosen, listed=listed, paid=paid,
        gone=len(chosen) - len(listed), paused=paused,
    )  # fmt: skip


def _paid(tx: Connection, kind: BulkKind, filters: Filters) -> Sequence[Money]:
    return paid_for(tx, filters) if kind is BulkKind.CANCEL else ()


def _confirm_all(visit: Visit, kind: BulkKind) -> Response:
    filters = filters_of(visit.query)
    with visit.console.engine.begin() as tx:
        asked_at = clock_of_database(tx)
        found = groups(tx, filters)
        paid = _paid(tx, kind, filters)
        selection = failures.select(tx, filters, limit=SHOWN)
        listed = failures.with_actions(tx, selection.tasks)
        held = {pause.lane for pause in lanes.paused(tx)}
    return page(
        visit, "confirm_all.html", kind=kind, groups=found, paid=paid, listed=listed,
        total=sum(group.tasks for group in found), asked_at=asked_at,
        chosen=chosen_in(visit.query), paused=sorted({g.lane for g in found} & held),
        least_rate=bulk.LEAST_RATE,
    )  # fmt: skip


def act(visit: Visit) -> Response:
    """Do what was confirmed."""
    kind = _kind(visit.form)
    if visit.form.get("scope") == "all":
        return _act_on_all(visit, kind)
    chosen = tasks_of(visit.form)
    if not chosen:
        raise BadInput("nothing was selected")
    outcomes = _retry(visit, chosen) if kind is BulkKind.RETRY else _give_up(visit, chosen)
    return page(visit, "acted.html", kind=kind, outcomes=outcomes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task; ``problem``: why nothing did."""

    task: TaskId
    problem: str | None = None


def _retry(visit: Visit, chosen: Sequence[TaskId]) -> list[Outcome]:
    with visit.console.engine.begin() as tx:
        tried = set(failures.retry(tx, chosen))
    return [Outcome(t, None if t in tried else "it has not failed any more") for t in chosen]


def _give_up(visit: Visit, chosen: Sequence[TaskId]) -> list[Outcome]:
    """Each in a transaction of its own: if one cannot be, the others are."""
    console, outcomes = visit.console, []
    for task in chosen:
        try:
            with console.engine.begin() as tx:
                catalogue = console.catalogue.current(tx)
                failures.cancel(tx, task.subject, catalogue, visit.now, steps=[task.name])
            outcomes.append(Outcome(task))
        except AutorenewError as error:
            outcomes.append(Outcome(task, str(error)))
    return outcomes


def rate_of(values: Values) -> float | None:
    said = values.get("rate")
    if said is None:
        return None
    try:
        rate = float(said.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not bulk.LEAST_RATE <= rate <= _FASTEST:
        raise BadInput(f"{said!r} is not a rate such as 5 (tasks a second)")
    return rate


def _act_on_all(visit: Visit, kind: BulkKind) -> Response:
    form = visit.form
    return start(
        visit, kind, filters_of(form),
        all_at_once=kind is BulkKind.CANCEL or form.get("all_at_once") is not None,
    )  # fmt: skip


def start(
    visit: Visit, kind: BulkKind, filters: Filters, *, all_at_once: bool = False,
    detail: Mapping[str, Any] | None = None,
) -> Response:  # fmt: skip
    """Start a bulk operation on what the page before has shown: what failed since was not shown,
    and is left; what was shown may have gone meanwhile.

    Args:
        detail: see :class:`producers.control.bulk.BulkOperation`.

    Raises:
        BadInput: more would be meant than was shown, or nothing.
    """
    form = visit.form
    until = moment_of(form, "asked_at")
    shown = form.number("total", 1, most=10**9)
    if until is None:
        raise BadInput("asked_at is missing")
    with visit.console.engine.begin() as tx:
        started = bulk.start(
            tx, kind, filters, rate=rate_of(form), until=until, all_at_once=all_at_once,
            detail=detail,
        )  # fmt: skip
        if not started.total:
            raise BadInput("none of them is failed any more: nothing was done")
        if started.total > shown:
            raise BadInput(
                f"{counted(started.total - shown)} more than were shown would be meant:"
                " nothing was done. Open the page again"
            )
    return see(f"/bulk/{started.id}")
