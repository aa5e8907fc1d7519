"""What waits for a person: failed tasks by fingerprint, one group, and one of them."""

import uuid
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, text
from starlette.responses import Response

from autorenew.console.context import BadInput, Visit
from autorenew.console.filtering import NO_CODE, chosen_in, filters_of, moment_of
from autorenew.console.rendering import page
from producers.control import failed as failures
from producers.control.groups import Group, groups
from producers.control.naming import UnknownName
from producers.control.selection import Filters
from producers.steps import QUEUES, STEPS, UNIVERSES
from workers.provisioning.outlook import outlook

PER_PAGE = 50
MOST_EVENTS = 200
_NOW = text("SELECT clock_timestamp()")


def clock_of_database(tx: Connection) -> datetime:
    """What happened before this moment was there to be seen."""
    moment: datetime = tx.execute(_NOW).scalar_one()
    return moment


def list_groups(visit: Visit) -> Response:
    """Failed tasks by what failed, where and why, the largest group first."""
    filters, problem, found = Filters(), None, list[Group]()
    try:
        filters = filters_of(visit.query)
        with visit.console.reading() as tx:
            found = groups(tx, filters)
    except (BadInput, UnknownName) as error:
        problem = str(error)
    return page(
        visit, "failed.html", groups=found, chosen=chosen_in(visit.query), problem=problem,
        total=sum(group.tasks for group in found), queues=QUEUES, steps=list(STEPS),
        universes=UNIVERSES, link_of=lambda group: link_of(visit, group),
        status=422 if problem else 200,
    )  # fmt: skip


def link_of(visit: Visit, group: Group) -> str:
    """The page of a group, with what else is filtered by."""
    query = visit.query.query(
        step=group.name, lane=group.lane, reason=group.reason, code=group.code or NO_CODE
    )
    return f"/failed/tasks?{query}"


def list_tasks(visit: Visit) -> Response:
    """The failed tasks that fit, with what the far side said."""
    filters = filters_of(visit.query)
    number = visit.query.number("page", 1)
    with visit.console.reading() as tx:
        asked_at = clock_of_database(tx)
        selection = failures.select(tx, filters, limit=PER_PAGE, skip=(number - 1) * PER_PAGE)
        listed = failures.with_actions(tx, selection.tasks)
    return page(
        visit, "failed_tasks.html", listed=listed, selection=selection, number=number,
        pages=-(-selection.total // PER_PAGE), chosen=chosen_in(visit.query), asked_at=asked_at,
        may_edit=any("edit" in one.actions for one in listed),
        may_tell=any("done" in one.actions for one in listed),
    )  # fmt: skip


def count_new(visit: Visit) -> Response:
    """What has failed since a page was opened; a part of that page, which asks for it again."""
    since = moment_of(visit.query, "asked_at")
    if since is None:
        raise BadInput("asked_at is missing")
    with visit.console.reading() as tx:
        found = groups(tx, _later(filters_of(visit.query), since))
    return page(
        visit, "new_failures.html", new=sum(g.tasks for g in found), chosen=chosen_in(visit.query),
        asked_at=since,
    )  # fmt: skip


def _later(filters: Filters, since: datetime) -> Filters:
    # What is filtered by another beginning already is counted from the later one.
    kept = filters.since if isinstance(filters.since, datetime) else since
    return replace(filters, since=max(since, kept))


def show_task(visit: Visit) -> Response:
    """All that is known of one subject that has failed: its attempts, and what a retry would do."""
    try:
        subject = uuid.UUID(visit.path["subject"])
    except ValueError:
        raise BadInput("that is no id") from None
    console = visit.console
    with console.reading() as tx:
        listed = failures.list_failed(tx, Filters(names=(str(subject),)))
        about = failures.about(tx, subject)
        events = list(tx.execute(_HISTORY, {"subject": subject, "limit": MOST_EVENTS}))
        lines = failures.last_lines(tx, subject)
        service = outlook(tx, subject, console.catalogue.current(tx), visit.now)
    return page(
        visit, "failed_task.html", subject=subject, listed=listed, about=about,
        events=events[::-1], outlook=service, lines=lines, most=MOST_EVENTS,
    )  # fmt: skip


_HISTORY = text("""
    SELECT at, name, task, waited, attempt, detail FROM events WHERE subject = :subject
    ORDER BY id DESC LIMIT :limit
""")
