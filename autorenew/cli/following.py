"""Following a bulk operation until its tasks have ended, and saying how they ended."""

import sys
import textwrap
import time
from dataclasses import asdict
from typing import Any

import click
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from autorenew.cli.common import said_of, say
from autorenew.cli.helping import INTERRUPTED
from autorenew.cli.lines import short, width
from autorenew.cli.selecting import counted
from producers.control import breakers, bulk, lanes
from producers.control.bulk import BulkOperation, WhyNot
from schemas.database import is_circumstance
from schemas.shown import for_terminal
from schemas.values import BulkKind, BulkState

POLL_SECONDS = 0.25
# Nothing sent by then, and nothing that holds it: perhaps no scheduler runs.
UNCLAIMED_SECONDS = 10.0
# Of the reasons for which tasks were not done, and with --json of such tasks, so many are listed.
LISTED = 20


def follow(engine: Engine, operation: BulkOperation, *, as_json: bool) -> int:
    """Show its progress on standard error until its tasks have ended; then how they did.

    Ctrl-C leaves it running.

    Returns:
        The exit code: 0 all are done, 1 some are not, 130 interrupted.
    """
    started, told = time.monotonic(), ""
    is_shown = sys.stderr.isatty()
    try:
        with click.progressbar(
            length=operation.total,
            label=short(operation.id),
            file=sys.stderr,
            item_show_func=lambda said: said,
            hidden=not is_shown,
        ) as bar:
            while not operation.is_over:
                ended = operation.done + operation.failed + operation.skipped
                bar.update(ended - bar.pos, _standing(operation))
                time.sleep(POLL_SECONDS)
                operation = _look(engine, operation)
                holds = operation.waits_for or _unclaimed(operation, time.monotonic() - started)
                if holds and holds != told and not is_shown:
                    say(f"waits: {holds}", err=True)
                told = holds or told
            bar.update(operation.done + operation.failed + operation.skipped - bar.pos, "")
    except KeyboardInterrupt:
        say(
            f"\nbulk operation {operation.id} goes on: see `autorenew bulk show"
            f" {short(operation.id)}`, stop it with `autorenew bulk stop {short(operation.id)}`",
            err=True,
        )
        return INTERRUPTED
    show(engine, operation, as_json=as_json)
    return _exit_code(operation)


def _look(engine: Engine, operation: BulkOperation) -> BulkOperation:
    """How it stands now; as it was, while the database cannot be asked."""
    try:
        with engine.connect() as tx:
            return bulk.get(tx, operation.id)
    except DBAPIError as error:
        if not is_circumstance(error):
            raise
        return operation


def _exit_code(operation: BulkOperation) -> int:
    return 0 if operation.done == operation.total else 1


def _unclaimed(operation: BulkOperation, seconds: float) -> str | None:
    if operation.sent or operation.skipped or seconds < UNCLAIMED_SECONDS:
        return None
    return "no scheduler has taken it up yet"


def _standing(operation: BulkOperation) -> str:
    parts = [f"{operation.under_way} under way"] if operation.under_way else []
    parts += [f"{operation.failed} failed"] if operation.failed else []
    parts += [operation.waits_for] if operation.waits_for else []
    return ", ".join(parts)


def document(operation: BulkOperation) -> dict[str, Any]:
    """An operation as JSON."""
    return asdict(operation) | {
        "waiting": operation.waiting,
        "under_way": operation.under_way,
        "is_over": operation.is_over,
    }


def show(engine: Engine, operation: BulkOperation, *, as_json: bool) -> None:
    """How it stands, and which of its tasks were not done."""
    with engine.connect() as tx:
        left = bulk.not_done(tx, operation.id, limit=LISTED) if as_json else []
        why = [] if as_json else bulk.why_not_done(tx, operation.id, limit=LISTED)
        pauses = lanes.paused(tx) if operation.waits_for else []
        opened = breakers.open_lanes(tx) if operation.waits_for else []
    if as_json:
        tasks = [asdict(task) for task in left]
        click.echo(said_of(document(operation) | {"not_done": tasks}))
        return
    say(
        f"bulk operation {operation.id}: {operation.kind} of {counted(operation.total)}, "
        f"{_state(operation)}"
    )
    because = f": {operation.note}" if operation.note else ""
    say(f"  asked for by {operation.asked_by} at {operation.created_at:%F %H:%M:%S} UTC{because}")
    say(f"  filter: {filters_of(operation)}")
    if operation.detail:
        say(f"  {_detail_of(operation)}")
    again = "refused" if operation.kind.is_statement else "failed again"
    say(
        f"  {operation.sent} {_SENT[operation.kind]}: {operation.done} done, {operation.failed}"
        f" {again},"
        f" {operation.under_way} under way; {operation.skipped} skipped, {operation.waiting}"
        f" {'not sent' if operation.state is not BulkState.RUNNING else 'to be sent'}"
    )
    if operation.reason:
        say(f"  {operation.reason}")
    if operation.waits_for:
        say(f"  waits: {operation.waits_for}")
        for pause in pauses:
            if pause.lane in _lanes_of(operation.waits_for):
                say(f"    {pause.lane}: pause {pause}")
        for one in opened:
            if one.lane in _lanes_of(operation.waits_for):
                say(f"    {one.lane}: {one}")
    _say_why(operation, why)


_SENT = {
    BulkKind.RETRY: "sent", BulkKind.CANCEL: "given up", BulkKind.EDIT: "changed and sent",
    BulkKind.DONE: "handed over", BulkKind.SETTLE: "handed over",
}  # fmt: skip


def _detail_of(operation: BulkOperation) -> str:
    """What is changed, or said, on one line."""
    said = operation.detail or {}
    if operation.kind is BulkKind.EDIT:
        parts = [f"{k}={v}" if v is not None else f"without {k}" for k, v in said.items()]
        return f"changes: {', '.join(parts)}"
    return ", ".join(
        f"{k.replace('_', ' ')}{'' if v is True else f' {v}'}" for k, v in said.items()
    )


def _lanes_of(waits_for: str) -> set[str]:
    """The lanes of ``paused: a, b; open: c``."""
    parts = (part.partition(": ")[2] for part in waits_for.split("; "))
    return {lane for part in parts for lane in part.split(", ")}


def _say_why(operation: BulkOperation, why: list[WhyNot]) -> None:
    """Why tasks were not done: how many for each reason, and the first of them."""
    for one in why:
        where = f" in lane {one.lane}" if one.lane else ""
        more = ", …" if one.tasks > len(one.examples) else ""
        examples = ", ".join(map(short, one.examples)) + more
        said = f"{one.tasks} {one.state}{where} ({examples}): {one.outcome or 'no reason is known'}"
        for line in textwrap.wrap(
            for_terminal(said), width() - 2, initial_indent="  ", subsequent_indent="    ",
            break_on_hyphens=False,
        ):  # fmt: skip
            click.echo(line)
    told = sum(one.tasks for one in why)
    if (more_tasks := operation.failed + operation.skipped - told) > 0 and why:
        say(f"  and {more_tasks} more, for other reasons")


def _state(operation: BulkOperation) -> str:
    if operation.state is BulkState.RUNNING or operation.is_over:
        return operation.state
    return f"{operation.state}; what was sent goes on"


def filters_of(operation: BulkOperation) -> str:
    """What it was asked for, on one line."""
    said = []
    for name, value in operation.filters.items():
        told = ", ".join(value) if isinstance(value, list) else value
        said.append(str(told) if name == "names" else f"{name.replace('_', '-')} {told}")
    return "; ".join(said) or "all"
