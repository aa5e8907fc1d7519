"""Commands about lanes: what is paused, by whom and why."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from sqlalchemy import text

from autorenew.cli.acting import Words, acts
from autorenew.cli.common import as_json, database, say, show
from autorenew.cli.selecting import Text
from producers.control import lanes as all_lanes
from producers.control.lanes import Lane, Pause
from schemas.values import PauseSource

_lane = click.argument("lane", type=Text())
_COLUMNS = ("lane", "queue", "tasks", "later", "leased", "failed", "paused_at", "reason")


@click.group()
def lanes() -> None:
    """Pause and resume groups of tasks: of a driver, of the gateway, of suspensions and ends."""


@lanes.command("list")
@as_json
def list_lanes(as_json: bool) -> None:
    """List the lanes, how many tasks each has in which state, and what pauses them."""
    with database().connect() as tx:
        found = all_lanes.list_lanes(tx)
    if as_json:
        for lane in found:
            click.echo(json.dumps(_document(lane)))
        return
    show("lanes", _COLUMNS, [_row(lane) for lane in found], json_lines=False)


def _row(lane: Lane) -> Sequence[Any]:
    since = min((pause.paused_at for pause in lane.pauses), default=None)
    return (
        lane.lane, lane.queue, lane.waiting, lane.later, lane.leased, lane.failed,
        since and since.replace(microsecond=0), "; ".join(map(str, lane.pauses)),
    )  # fmt: skip


def _document(lane: Lane) -> dict[str, Any]:
    """The fields of a row, and each pause by itself."""
    since = min((pause.paused_at for pause in lane.pauses), default=None)
    pauses = [
        {"pause": p.id, "source": p.source, "paused_by": p.paused_by, "reason": p.reason,
         "paused_at": p.paused_at.isoformat()}
        for p in lane.pauses
    ]  # fmt: skip
    return {
        **dict(zip(_COLUMNS, _row(lane), strict=True)),
        "paused_at": since and since.isoformat(),
        "reason": "; ".join(pause.reason for pause in lane.pauses) or None,
        "pauses": pauses,
    }


_HISTORY = text("SELECT at, name, detail FROM events WHERE subject = :subject ORDER BY at, id")


@lanes.command("show")
@_lane
@as_json
def show_lane(lane: str, as_json: bool) -> None:
    """Show what is in LANE, what pauses it, and who paused and resumed it before."""
    with database().connect() as tx:
        all_lanes.check(tx, lane)
        found = [one for one in all_lanes.list_lanes(tx) if one.lane == lane]
        events = tx.execute(_HISTORY, {"subject": all_lanes.subject_of(lane)}).all()
    rows = [(e.at, e.name, *((e.detail or {}).get(n) for n in _DETAIL)) for e in events]
    if as_json:
        documents = [_document(one) for one in found]
        history = [dict(event._mapping) for event in events]
        click.echo(json.dumps({"lane": lane, "queues": documents, "history": history}, default=str))
        return
    show("lane", _COLUMNS, [_row(one) for one in found], json_lines=False)
    show("history", ("at", "event", *_DETAIL), rows, json_lines=False)


_DETAIL = ("pause", "by", "because", "paused_by", "paused_because")


@lanes.command()
@_lane
@acts(required=True)
def pause(lane: str, because: str) -> None:
    """Start no further task in LANE until `resume`; running tasks finish.

    It stands beside every other pause of the lane: an operator's for another reason, the guard's.
    """
    with database().begin() as tx:
        is_new = all_lanes.pause(tx, lane, because)
        pauses = all_lanes.paused(tx, lane)
    say(f"{lane} is paused" if is_new else f"{lane}: no change, you have paused it for that reason")
    if len(pauses) > 1:
        _say_standing(pauses)


@lanes.command()
@_lane
@click.option("--pause", "numbers", multiple=True, type=int, help="This one. May be repeated.")
@click.option("--paused-by", type=Words(), help="All of this operator.")
@click.option("--all", "everybody", is_flag=True, help="All of all operators; not the guard's.")
@click.option("--guard", is_flag=True, help="Those of the guard: you have looked.")
@acts()
def resume(
    lane: str, numbers: Sequence[int], paused_by: str | None, everybody: bool, guard: bool
) -> None:
    """End a pause of LANE; with the last one, the tasks that wait there start.

    Without an option it ends the pause of an operator, if there is one only; if there are several,
    say which. The guard's ends with --guard alone. Exit code 1 if it is paused and none ended.
    """
    with database().begin() as tx:
        ended = all_lanes.resume(
            tx, lane, numbers=numbers, paused_by=paused_by, everybody=everybody, guard=guard
        )
        left = all_lanes.paused(tx, lane)
    for one in ended:
        say(f"{lane}: ended pause {one}")
    if left:
        say(f"{lane} is still paused")
        _say_standing(left)
        if any(pause.source is PauseSource.GUARD for pause in left) and not guard:
            say(f"once you have looked: autorenew lanes resume {lane} --guard", err=True)
    else:
        say(f"{lane} is resumed" if ended else f"{lane} was not paused")
    sys.exit(1 if left and not ended else 0)


def _say_standing(pauses: Sequence[Pause]) -> None:
    for pause in pauses:
        say(f"  pause {pause}")
