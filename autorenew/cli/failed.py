"""Commands about failed tasks: what waits for a person, and what a person can do about it."""

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from autorenew.cli.common import as_json, clock, database, said_of, say, show
from autorenew.cli.failed_acting import cancel_failed, retry_failed
from autorenew.cli.failed_by_hand import done_by_hand, settle_by_hand
from autorenew.cli.failed_editing import edit_failed
from autorenew.cli.helping import Commands
from autorenew.cli.lines import Column, age, echo, short, width
from autorenew.cli.selecting import Text, counted, say_more, say_none, say_unmatched, selects
from autorenew.cli.tasks import find_history, show_history, whole_second
from producers.control import failed as failures
from producers.control.groups import Group, groups
from producers.control.naming import UnknownName
from producers.control.selection import Filters
from producers.steps import CONVERGE
from schemas.catalogue.store import CatalogueCache
from schemas.shown import for_terminal

COLUMNS = (
    "queue", "task", "subject", "order", "customer", "services", "plan", "lane", "reason", "code",
    "error", "attempts", "total_attempts", "first_failed_at", "since", "possible",
)  # fmt: skip
_GROUP = (
    "task", "lane", "driver", "reason", "code", "tasks", "attempts", "first_failed_at", "since",
)  # fmt: skip
_GROUP_LINE = (
    Column("TASKS", 7, right=True), Column("STEP", 9), Column("LANE", 16), Column("REASON", 18),
    Column("FIRST", 5, right=True), Column("LAST", 4, right=True), Column("FAR SIDE'S CODE"),
)  # fmt: skip
_LINE = (
    Column("ID", 8), Column("STEP", 9), Column("CUSTOMER", 13), Column("ORDER", 18),
    Column("REASON", 18), Column("TRY", 3, right=True), Column("LAST", 4),
)  # fmt: skip
# Where there is room for it: what the far side says.
_SAYS_FROM = 100


@click.group(cls=Commands)
def failed() -> None:
    """Tasks that wait for a person."""


failed.add_command(retry_failed)
failed.add_command(edit_failed)
failed.add_command(cancel_failed)
failed.add_command(done_by_hand)
failed.add_command(settle_by_hand)


@failed.command("list")
@selects()
@click.option("--group", is_flag=True, help="Count them by step, lane, reason and code.")
@click.option(
    "--limit", type=click.IntRange(1), default=1000, show_default=True, help="So many at most."
)
@click.option(
    "--page", type=click.IntRange(1), default=1, show_default=True, help="Which page of so many."
)
@as_json
def list_failed(filters: Filters, group: bool, limit: int, page: int, as_json: bool) -> None:
    """List failed tasks, one a line: customer, order, reason, attempts, and when it failed last.

    NAMES are ids of subjects, or keys of orders, customers and domains for all that is about them.
    ID is the beginning of the subject's id, and stands for it in every command. --json has all that
    is known of each, and what can be done about it.
    """
    if group:
        with database().connect() as tx:
            found = groups(tx, filters)
        skip = (page - 1) * limit
        shown = found[skip : skip + limit]
        if found and not shown and not as_json:
            say_none("groups of failed tasks", page, len(found))
        else:
            show_groups(shown, as_json=as_json)
        if (more := len(found) - skip - len(shown)) > 0:
            say(f"and {counted(more, 'more group')}; see --page and --limit", err=as_json)
        return
    with database().connect() as tx:
        selection = failures.select(tx, filters, limit=limit, skip=(page - 1) * limit)
        listed = failures.with_actions(tx, selection.tasks)
    if as_json:
        show("", COLUMNS, [_row(task) for task in listed], json_lines=True)
    elif listed:
        echo_failed(listed)
    else:
        say_none("failed tasks", page, selection.total)
    say_more(selection, as_json=as_json, see="--page and --limit")
    say_unmatched(selection.unmatched, "no failed task")


def show_groups(found: Sequence[Group], *, as_json: bool) -> None:
    if as_json:
        rows = [
            (
                g.name, g.lane, g.driver, g.reason, g.code, g.tasks, g.attempts,
                whole_second(g.first), whole_second(g.last),
            )
            for g in found
        ]  # fmt: skip
        show("", _GROUP, rows, json_lines=True)
    elif found:
        now = datetime.now(UTC)
        echo(
            _GROUP_LINE,
            (
                (g.tasks, g.name, g.lane, g.reason, age(g.first, now), age(g.last, now), g.code)
                for g in found
            ),
        )
    else:
        say("failed tasks: none")


def echo_failed(listed: Sequence[failures.FailedTask]) -> None:
    now = datetime.now(UTC)
    rows = [
        (
            short(one.subject), one.name, one.about.customer, one.about.order_key,
            one.task.code or one.reason, one.task.total_attempts, age(one.task.since, now),
        )
        for one in listed
    ]  # fmt: skip
    if width() < _SAYS_FROM:
        echo(_LINE, rows)
    else:
        says = [(*row, one.error) for row, one in zip(rows, listed, strict=True)]
        echo((*_LINE, Column("SAYS")), says)


def _row(one: failures.FailedTask) -> Sequence[Any]:
    task, about = one.task, one.about
    return (
        task.queue, task.name, task.subject, about.order_key, about.customer,
        [str(service) for service in about.services], one.plan, task.lane, task.reason, task.code,
        task.error, task.attempts, task.total_attempts, whole_second(task.first_failed_at),
        whole_second(task.since), list(one.actions),
    )  # fmt: skip


@failed.command("show")
@click.argument("name", metavar="ID", type=Text())
@click.option("--upstream", type=Text(), help="Needed where several use the same order key.")
@click.option(
    "--limit", type=click.IntRange(1), default=200, show_default=True, help="So many at most."
)
@as_json
def show_failed(name: str, upstream: str | None, limit: int, as_json: bool) -> None:
    """Show all attempts of what failed, what a retry would call, and what may exist over there.

    ID is one of `failed list`, or any other name of one subject; also of what has succeeded since.
    --limit: so many of the newest events.
    """
    from workers.provisioning.outlook import outlook

    engine = database()
    with engine.connect() as tx:
        subject = failures.one_subject(tx, name, upstream=upstream)
        listed = failures.list_failed(tx, Filters(names=(str(subject),)))
        events = find_history(tx, [subject], limit)
        about = failures.about(tx, subject)
        lines = failures.last_lines(tx, subject)
        now = clock(engine).now()
        service = outlook(tx, subject, CatalogueCache().current(tx), now)
    if about.kind is None and not events:
        raise UnknownName(f"nothing is known of {subject}")
    facts: list[tuple[str, object]] = [
        ("subject", f"{about.kind or ''} {subject}".strip()),
        ("customer", about.customer), ("order", about.order_key),
        ("plans", ", ".join(about.plans)), ("domains", ", ".join(about.domains)),
        ("options", service and ", ".join(f"{k}={v}" for k, v in service.configuration.items())),
        ("state", about.state),
    ]  # fmt: skip
    for one in listed:
        why = ": ".join(filter(None, (one.reason, one.task.code)))
        facts += [
            ("failed", f"{one.name} in lane {one.task.lane}: {why}"),
            ("paused", "the lane is: a retry waits for it" if one.task.is_lane_paused else None),
            ("says", one.error), ("attempts", f"{one.attempts}, {one.task.total_attempts} in all"),
            ("first", one.task.first_failed_at), ("last", one.task.since),
            ("possible", ", ".join(one.actions)),
        ]  # fmt: skip
        if one.name != CONVERGE:
            facts.append(("next", f"the step {one.name}, from its first attempt, same keys"))
    if not listed:
        facts.append(("failed", "nothing waits for a person"))
    if service is not None:
        facts += [("next", str(service)), ("over there", service.over_there)]
    if as_json:
        document = {
            "subject": subject, "kind": about.kind, "customer": about.customer,
            "order": about.order_key, "plans": list(about.plans), "state": about.state,
            "configuration": service and service.configuration,
            "tasks": [
                dict(zip(COLUMNS, _row(one), strict=True)) | {"lines": lines.get(one.name, [])}
                for one in listed
            ],
            "next": service and service.next, "asks_first": service and service.asks_first,
            "may_exist": service and service.may_exist,
            "over_there": service and service.over_there,
            "resource_id": service and service.resource_id,
        }  # fmt: skip
        click.echo(said_of(document))
    else:
        for label, fact in facts:
            if fact:
                say(f"{label:<10}  {fact:%F %H:%M:%S} UTC" if isinstance(fact, datetime)
                    else f"{label:<10}  {fact}")  # fmt: skip
    if as_json:
        show_history(events, as_json=True)
    else:
        _say_attempts(events)
        for name, said in lines.items():
            click.echo()
            say(f"the last lines of the log about {name}:")
            for text in said:
                at, _, words = text.partition(" ")
                _say_folded(f"{at[:10]} {at[11:19]}  ", words)


def _say_attempts(events: Sequence[Any]) -> None:
    """What happened, in order; long texts are folded."""
    for event in events:
        detail = ", ".join(f"{k} {v}" for k, v in (event.detail or {}).items())
        attempt = f" (attempt {event.attempt})" if event.attempt else ""
        said = f"{event.name}{attempt} {detail}".strip()
        _say_folded(f"{event.at.astimezone(UTC):%F %H:%M:%S}  ", said)


def _say_folded(start: str, said: str) -> None:
    """A text beside what it begins with; long ones are folded."""
    folded = textwrap.wrap(for_terminal(said), width() - len(start), break_on_hyphens=False)
    for number, line in enumerate(folded):
        click.echo(f"{start if number == 0 else ' ' * len(start)}{line}")
