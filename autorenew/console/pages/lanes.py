"""Lanes and queues: what is in them and what holds them; pause, resume, limit."""

import math
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from starlette.responses import Response

from autorenew.console.context import BadInput, Values, Visit
from autorenew.console.rendering import page
from autorenew.console.routing import see
from producers.control import breakers, lanes, limits
from producers.control.breakers import OpenLane
from producers.control.lanes import Lane, Pause, subject_of
from producers.control.limits import Limit
from producers.steps import QUEUES, STEPS
from schemas.values import PauseSource

MOST_EVENTS = 50


@dataclass(frozen=True, slots=True)
class Held:
    """A lane on a queue, with what holds it."""

    lane: Lane
    opened: OpenLane | None
    limit: Limit | None


def read(tx: Connection) -> list[Held]:
    """Every lane on every queue."""
    opened = {one.lane: one for one in breakers.open_lanes(tx)}
    limited = limits.limits(tx)
    return [Held(one, opened.get(one.lane), limited.get(one.lane)) for one in lanes.list_lanes(tx)]


# Each part by an index: what waits in no batch and is due, and what is in one.
_OLDEST = text("""
    SELECT queue, min(run_at) AS since FROM (
        SELECT queue, min(run_at) AS run_at FROM tasks
        WHERE state = 'ready' AND NOT batched AND run_at <= clock_timestamp() GROUP BY queue
        UNION ALL
        SELECT queue, min(run_at) FROM batches WHERE state <> 'leased' GROUP BY queue
    ) AS waiting GROUP BY queue
""")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and what is in it.

    Attributes:
        since: when the task that waits for longest became ready.
    """

    name: str
    steps: tuple[str, ...]
    ready: int
    later: int
    leased: int
    failed: int
    since: datetime | None


def queues(tx: Connection, held: list[Held]) -> list[Queue]:
    """Every queue, in the order in which an order passes them; as the role ``readonly``."""
    since = {row.queue: row.since for row in tx.execute(_OLDEST)}
    found = []
    for name in QUEUES:
        own = [one.lane for one in held if one.lane.queue == name]
        found.append(
            Queue(
                name,
                tuple(step.task for step in STEPS.values() if name in step.queues),
                sum(lane.ready for lane in own),
                sum(lane.later for lane in own),
                sum(lane.leased for lane in own),
                sum(lane.failed for lane in own),
                since.get(name),
            )
        )
    return found


def list_lanes(visit: Visit) -> Response:
    with visit.console.engine.begin() as tx:
        held = read(tx)
    with visit.console.reading() as tx:
        found = queues(tx, held)
    return page(visit, "lanes.html", held=held, queues=found)


def show(visit: Visit) -> Response:
    name = visit.path["lane"]
    with visit.console.engine.begin() as tx:
        lanes.check(tx, name)
        held = [one for one in read(tx) if one.lane.lane == name]
        pauses = lanes.paused(tx, name)
    with visit.console.reading() as tx:
        events = list(tx.execute(_HISTORY, {"subject": subject_of(name), "most": MOST_EVENTS}))
    return page(
        visit, "lane.html", name=name, held=held, pauses=pauses, events=events,
        steps=sorted(s.task for s in STEPS.values() if name == (s.lane or "")),
        Source=PauseSource,
    )  # fmt: skip


_HISTORY = text("""
    SELECT at, name, detail FROM events WHERE subject = :subject ORDER BY id DESC LIMIT :most
""")


def confirm_pause(visit: Visit) -> Response:
    """What waits once the lane is paused."""
    return _confirm(visit, "confirm_pause.html")


def confirm_close(visit: Visit) -> Response:
    """What starts once the lane is closed."""
    return _confirm(visit, "confirm_close.html")


def _confirm(visit: Visit, template: str) -> Response:
    name = visit.path["lane"]
    with visit.console.engine.begin() as tx:
        lanes.check(tx, name)
        held = [one for one in read(tx) if one.lane.lane == name]
        pauses = lanes.paused(tx, name)
    return page(visit, template, name=name, held=held, pauses=pauses)


def pause(visit: Visit) -> Response:
    name = visit.path["lane"]
    note = visit.form.get("note")
    if note is None:
        raise BadInput("say why the lane is paused: it is shown to everybody who asks")
    with visit.console.engine.begin() as tx:
        lanes.pause(tx, name, note)
    return see(f"/lanes/{name}")


def confirm_resume(visit: Visit) -> Response:
    """What starts once a pause has ended."""
    name = visit.path["lane"]
    number = visit.query.number("pause", 0, most=2**31)
    with visit.console.engine.begin() as tx:
        pauses = lanes.paused(tx, name)
        held = [one for one in read(tx) if one.lane.lane == name]
    return page(
        visit, "confirm_resume.html", name=name, pause=_pause(pauses, number),
        others=[p for p in pauses if p.id != number], held=held, Source=PauseSource,
    )  # fmt: skip


def _pause(pauses: list[Pause], number: int) -> Pause:
    found = next((pause for pause in pauses if pause.id == number), None)
    if found is None:
        raise BadInput("that pause has ended already")
    return found


def resume(visit: Visit) -> Response:
    name = visit.path["lane"]
    number = visit.form.number("pause", 0, most=2**31)
    with visit.console.engine.begin() as tx:
        lanes.resume(tx, name, numbers=[number])
    return see(f"/lanes/{name}")


def limit(visit: Visit) -> Response:
    name, form = visit.path["lane"], visit.form
    with visit.console.engine.begin() as tx:
        if form.get("lift") is not None:
            limits.lift(tx, name)
        else:
            limits.set_limit(tx, name, _limit(form))
    return see(f"/lanes/{name}")


def _limit(form: Values) -> Limit:
    at_once = form.number("at_once", 0) or None
    said = form.get("per_second")
    try:
        per_second = float(said) if said is not None else None
    except ValueError:
        raise BadInput(f"{said!r} is not a rate such as 5") from None
    burst = form.number("burst", 0) or None
    if per_second is not None and burst is None:
        burst = max(1, math.ceil(per_second)) if math.isfinite(per_second) else 1
    return Limit(at_once, per_second, burst)


def probe(visit: Visit) -> Response:
    """Try an open lane at once, or close it."""
    name = visit.path["lane"]
    with visit.console.engine.begin() as tx:
        lanes.check(tx, name)
        if visit.form.get("close") is not None:
            breakers.close_lane(tx, name)
        else:
            breakers.probe_now(tx, name)
    return see(f"/lanes/{name}")
