"""Commands about lanes: what is paused, by whom and why; what is open, and what is limited."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from sqlalchemy import Connection, text

from autorenew.cli.acting import Words, acts
from autorenew.cli.common import as_json, database, say, show
from autorenew.cli.helping import Commands
from autorenew.cli.selecting import Text
from producers.control import breakers, limits
from producers.control import lanes as all_lanes
from producers.control.breakers import OpenLane
from producers.control.lanes import Lane, Pause
from producers.control.limits import Limit
from schemas.values import PauseSource

_lane = click.argument("lane", type=Text())
_COLUMNS = (
    "lane", "queue", "tasks", "later", "leased", "failed", "limit", "paused_at", "reason",
)  # fmt: skip


@click.group(cls=Commands)
def lanes() -> None:
    """Pause, resume and limit groups of tasks: of a driver, of the gateway, of ends.

    A lane is paused by a person or by the guard, until somebody resumes it. It is open while its
    far side fails, and closes by itself once a probe is answered.
    """


@lanes.command("list")
@as_json
def list_lanes(as_json: bool) -> None:
    """List the lanes, how many tasks each has in which state, and what holds them."""
    with database().connect() as tx:
        found = _read(tx)
    if as_json:
        for one in found:
            click.echo(json.dumps(_document(*one)))
        return
    show("lanes", _COLUMNS, [_row(*one) for one in found], json_lines=False)


def _read(
    tx: Connection, lane: str | None = None
) -> list[tuple[Lane, OpenLane | None, Limit | None]]:
    """Each lane on each queue, why it is open if it is, and its limit."""
    opened = {one.lane: one for one in breakers.open_lanes(tx)}
    limited = limits.limits(tx)
    return [
        (one, opened.get(one.lane), limited.get(one.lane))
        for one in all_lanes.list_lanes(tx)
        if lane in (None, one.lane)
    ]


def _row(lane: Lane, opened: OpenLane | None, limit: Limit | None) -> Sequence[Any]:
    since = [pause.paused_at for pause in lane.pauses]
    since += [opened.opened_at] if opened else []
    return (
        lane.lane, lane.queue, lane.waiting, lane.later, lane.leased, lane.failed,
        str(limit) if limit else None, min(since).replace(microsecond=0) if since else None,
        "; ".join(map(str, (*lane.pauses, *([opened] if opened else [])))),
    )  # fmt: skip


def _document(lane: Lane, opened: OpenLane | None, limit: Limit | None) -> dict[str, Any]:
    """The fields of a row; each pause, why it is open and its limit by themselves."""
    since = min((pause.paused_at for pause in lane.pauses), default=None)
    return {
        **dict(zip(_COLUMNS, _row(lane, opened, limit), strict=True)),
        "paused_at": since and since.isoformat(),
        "reason": "; ".join(pause.reason for pause in lane.pauses) or None,
        "pauses": list(map(_pause, lane.pauses)),
        "open": _open(opened),
        "limit": limit and asdict(limit),
    }


def _pause(one: Pause) -> dict[str, Any]:
    return {
        "pause": one.id, "source": one.source, "paused_by": one.paused_by, "reason": one.reason,
        "paused_at": one.paused_at.isoformat(),
    }  # fmt: skip


def _open(opened: OpenLane | None) -> dict[str, Any] | None:
    if opened is None:
        return None
    return {
        "cause": opened.cause,
        "reason": opened.reason,
        "probes": opened.probes,
        "opened_at": opened.opened_at.isoformat(),
        "probe_at": opened.probe_at.isoformat(),
    }


def _outcome(tx: Connection, lane: str, *, changed: bool, ended: Sequence[Pause] = ()) -> str:
    """What a command did to a lane, and what holds it now, as a line of JSON."""
    opened = breakers.open_lanes(tx, lane)
    limit = limits.limits(tx).get(lane)
    document = {
        "lane": lane, "changed": changed, "ended": list(map(_pause, ended)),
        "pauses": list(map(_pause, all_lanes.paused(tx, lane))),
        "open": _open(opened[0] if opened else None), "limit": limit and asdict(limit),
    }  # fmt: skip
    return json.dumps(document)


_HISTORY = text("SELECT at, name, detail FROM events WHERE subject = :subject ORDER BY at, id")


@lanes.command("show")
@_lane
@as_json
def show_lane(lane: str, as_json: bool) -> None:
    """Show what is in LANE, what holds it, and what became of it before, by whom."""
    with database().connect() as tx:
        all_lanes.check(tx, lane)
        found = _read(tx, lane)
        events = tx.execute(_HISTORY, {"subject": all_lanes.subject_of(lane)}).all()
    rows = [(e.at, e.name, *((e.detail or {}).get(n) for n in _DETAIL)) for e in events]
    if as_json:
        documents = [_document(*one) for one in found]
        history = [dict(event._mapping) for event in events]
        click.echo(json.dumps({"lane": lane, "queues": documents, "history": history}, default=str))
        return
    show("lane", _COLUMNS, [_row(*one) for one in found], json_lines=False)
    show("history", ("at", "event", *_DETAIL), rows, json_lines=False)


_DETAIL = (
    "pause", "by", "because", "paused_by", "paused_because", "reason", "probes", "seconds",
    "at_once", "per_second", "burst",
)  # fmt: skip


@lanes.command()
@_lane
@as_json
@acts(required=True)
def pause(lane: str, because: str, as_json: bool) -> None:
    """Start no further task in LANE until `resume`; running tasks finish.

    It stands beside every other pause of the lane: an operator's for another reason, the guard's.
    """
    with database().begin() as tx:
        is_new = all_lanes.pause(tx, lane, because)
        pauses = all_lanes.paused(tx, lane)
        outcome = _outcome(tx, lane, changed=is_new)
    if as_json:
        click.echo(outcome)
        return
    say(f"{lane} is paused" if is_new else f"{lane}: no change, you have paused it for that reason")
    if len(pauses) > 1:
        _say_standing(pauses)


@lanes.command()
@_lane
@click.option("--pause", "numbers", multiple=True, type=int, help="This one. May be repeated.")
@click.option("--paused-by", type=Words(), help="All of this operator.")
@click.option("--all", "everybody", is_flag=True, help="All of all operators; not the guard's.")
@click.option("--guard", is_flag=True, help="Those of the guard: you have looked.")
@as_json
@acts()
def resume(
    lane: str, numbers: Sequence[int], paused_by: str | None, everybody: bool, guard: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """End a pause of LANE; with the last one, the tasks that wait there start.

    Without an option it ends the pause of an operator, if there is one only; if there are several,
    say which. The guard's ends with --guard alone. Exit code 1 if it is paused and none ended.
    """
    with database().begin() as tx:
        ended = all_lanes.resume(
            tx, lane, numbers=numbers, paused_by=paused_by, everybody=everybody, guard=guard
        )
        left = all_lanes.paused(tx, lane)
        outcome = _outcome(tx, lane, changed=bool(ended), ended=ended)
    if as_json:
        click.echo(outcome)
        sys.exit(1 if left and not ended else 0)
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


@lanes.command("limit")
@_lane
@click.option("--at-once", type=click.IntRange(1), help="Tasks worked on at a time.")
@click.option("--per-second", type=float, help="Tasks begun a second.")
@click.option("--burst", type=click.IntRange(1), help="Of them, at once after a quiet time.")
@click.option("--none", "lifted", is_flag=True, help="Take the limit away.")
@as_json
@acts()
def limit_lane(
    lane: str, at_once: int | None, per_second: float | None, burst: int | None, lifted: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Bound what the whole fleet asks of the far side of LANE, from the next task on.

    What is not named has no limit. A burst is as large as the rate, if none is named. A task is one
    call, and two where it first has to ask what became of an earlier one.
    """
    named = at_once is not None or per_second is not None
    if named == lifted:
        raise click.UsageError("name --at-once, --per-second or both; or --none")
    if per_second is not None and burst is None:
        burst = max(1, math.ceil(per_second)) if math.isfinite(per_second) else 1
    with database().begin() as tx:
        if lifted:
            changed = limits.lift(tx, lane)
            said = f"{lane} has no limit" + ("" if changed else ", and had none")
        else:
            limit = Limit(at_once, per_second, burst)
            changed = limits.limits(tx).get(lane) != limit
            limits.set_limit(tx, lane, limit)
            said = f"{lane}: {limit}"
        outcome = _outcome(tx, lane, changed=changed)
    if as_json:
        click.echo(outcome)
    else:
        say(said)


@lanes.command("try")
@_lane
@as_json
@acts()
def try_lane(lane: str, as_json: bool) -> None:
    """Let one task of LANE, which is open, out at once: if it is answered, the lane closes.

    Exit code 1 if the lane is not open.
    """
    with database().begin() as tx:
        all_lanes.check(tx, lane)
        is_open = breakers.probe_now(tx, lane)
        waiting = sum(one.waiting for one, *_ in _read(tx, lane))
        pauses = all_lanes.paused(tx, lane)
        outcome = _outcome(tx, lane, changed=is_open)
    if as_json:
        click.echo(outcome)
    elif not is_open:
        say(f"{lane} is not open")
    elif pauses:
        say(f"{lane} is paused, too: the next probe goes out once it is resumed")
        _say_standing(pauses)
    elif not waiting:
        say(f"{lane}: the next task that comes goes out as a probe; none waits now")
    else:
        say(f"{lane}: the next probe goes out now")
    sys.exit(0 if is_open else 1)


@lanes.command("close")
@_lane
@as_json
@acts()
def close_lane(lane: str, as_json: bool) -> None:
    """Close LANE, which is open, without a probe: all that waits there starts.

    If its far side still fails, it opens again. Exit code 1 if the lane is not open.
    """
    with database().begin() as tx:
        all_lanes.check(tx, lane)
        was_open = breakers.close_lane(tx, lane)
        pauses = all_lanes.paused(tx, lane)
        outcome = _outcome(tx, lane, changed=was_open)
    if as_json:
        click.echo(outcome)
        sys.exit(0 if was_open else 1)
    say(f"{lane} is closed" if was_open else f"{lane} is not open")
    if was_open and pauses:
        say(f"{lane} is still paused")
        _say_standing(pauses)
    sys.exit(0 if was_open else 1)


def _say_standing(pauses: Sequence[Pause]) -> None:
    for pause in pauses:
        say(f"  pause {pause}")
