"""Whether customers are being served, in one look; and what holds that back, with a way there."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, text
from starlette.responses import Response

from autorenew.console.charts import Bar, stacked
from autorenew.console.context import Visit
from autorenew.console.pages import lanes as lane_pages
from autorenew.console.pages.failed import link_of
from autorenew.console.pages.lanes import Held, Queue
from autorenew.console.rendering import page
from autorenew.console.today import Audit
from producers.control.groups import groups
from producers.steps import WEBHOOKS
from schemas.rules.outlook import Decision

# A task that has been ready for longer than this keeps a customer waiting.
LATE = timedelta(minutes=1)
VERY_LATE = timedelta(minutes=10)
_LOOKED_AT = 20_000
_RATE_SECONDS = 300.0

# Of the newest events, which a BRIN index finds by their ids: what was done on each queue.
_DONE = text("""
    WITH lately AS MATERIALIZED (
        SELECT e.at, e.task, e.subject FROM events AS e
        WHERE e.id > (SELECT last_value - :most FROM events_id_seq)
          AND e.at > clock_timestamp() - make_interval(secs => :seconds)
    )
    SELECT coalesce(s.universe, q.queue) AS queue, count(*) AS done,
        extract(epoch FROM clock_timestamp() - (SELECT min(at) FROM lately))::float8 AS span,
        (SELECT count(*) FROM lately) AS seen
    FROM lately AS l
    LEFT JOIN unnest(CAST(:tasks AS text[]), CAST(:queues AS text[])) AS q(task, queue)
        ON q.task = l.task
    LEFT JOIN services AS s ON s.id = l.subject AND l.task = 'converge'
    WHERE l.task IS NOT NULL
    GROUP BY 1
""")
_FORECAST = text("""
    SELECT made_on, due_on, decision, sum(services)::bigint AS services FROM forecasts
    WHERE made_on = (SELECT max(made_on) FROM forecasts) GROUP BY 1, 2, 3 ORDER BY due_on
""")
_QUEUE_OF_TASK = {
    "price": "orders", "charge": "billing", "refund": "billing", "request": "billing",
    "withdraw": "billing", "suspend": "billing", "terminate": "billing", "remind": "reminders",
    "tell": "reminders",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in one sentence.

    Attributes:
        level: ``good``, ``warning`` or ``bad``.
        because: what speaks against it, each with where to look.
    """

    level: str
    said: str
    because: tuple[tuple[str, str], ...]


def show(visit: Visit) -> Response:
    console = visit.console
    with console.engine.begin() as tx:
        held = lane_pages.read(tx)
        failing = groups(tx)
    now = visit.now
    with console.reading() as tx:
        queues = lane_pages.queues(tx, held)
        rates = _rates(tx)
        chart, made_on, weeks = _forecast(tx)
    audited = console.audit.get(console.reader)
    failures = sum(group.tasks for group in failing)
    return page(
        visit, "overview.html", verdict=_judge(queues, held, failures, audited, now), queues=queues,
        rates=rates, stopped=[h for h in held if h.lane.pauses or h.opened], failures=failures,
        link_of=partial(link_of, visit), failing=failing[:5], more=len(failing) - 5, chart=chart,
        made_on=made_on, weeks=weeks, decisions=list(Decision), now=now, audit=audited,
        today=console.today.get(console.reader), workers=console.workers.get(console.reader),
    )  # fmt: skip


def _rates(tx: Connection) -> dict[str, float]:
    """Tasks a minute that were done on each queue, lately."""
    rows = tx.execute(
        _DONE,
        {
            "most": _LOOKED_AT,
            "seconds": _RATE_SECONDS,
            "tasks": list(_QUEUE_OF_TASK),
            "queues": list(_QUEUE_OF_TASK.values()),
        },
    )
    # If there were more of them than are looked at, they span less than the whole time.
    return {
        r.queue: r.done / (max(r.span, 1.0) if r.seen >= _LOOKED_AT * 0.9 else _RATE_SECONDS) * 60
        for r in rows
        if r.queue is not None
    }


def _judge(
    queues: list[Queue], held: list[Held], failures: int, audited: Audit, now: datetime
) -> Verdict:
    # An endpoint of an upstream that is away keeps no customer waiting.
    bad: list[tuple[str, str]] = []
    warning: list[tuple[str, str]] = []
    for queue in queues:
        waited = now - queue.since if queue.since else timedelta()
        said = f"{queue.name}: a task has waited for {_minutes(waited)}"
        if waited > VERY_LATE and queue.name != WEBHOOKS:
            bad.append((said, "/lanes"))
        elif waited > LATE:
            warning.append((said, "/lanes"))
    for one in held:
        link = f"/lanes/{one.lane.lane}"
        if one.opened and one.lane.queue == WEBHOOKS:
            warning.append((f"{one.lane.lane}: an upstream's endpoint fails", link))
        elif one.opened:
            bad.append((f"{one.lane.lane}: its far side fails", link))
        if one.lane.pauses:
            warning.append((f"{one.lane.lane} is paused", link))
    if failures:
        said = f"{failures:,} {'task waits' if failures == 1 else 'tasks wait'} for a person"
        warning.append((said, "/failed"))
    for name, offenders in audited.broken.items():
        bad.append((f"the audit: {name} is violated, by {offenders:,}", "#audit"))
    because = tuple(dict.fromkeys((*bad, *warning)))
    if bad:
        return Verdict("bad", "Some customers are not being served.", because)
    if warning:
        return Verdict("warning", "Customers are being served, with exceptions.", because)
    return Verdict("good", "Customers are being served.", ())


def _minutes(waited: timedelta) -> str:
    minutes = waited.total_seconds() / 60
    return f"{minutes / 60:.0f} h" if minutes >= 120 else f"{minutes:.0f} min"


def _forecast(tx: Connection) -> tuple[object, date | None, dict[date, dict[Decision, int]]]:
    """The newest snapshot, by week: a chart, its day, and the numbers."""
    weeks: dict[date, dict[Decision, int]] = {}
    made_on: date | None = None
    for row in tx.execute(_FORECAST):
        made_on = row.made_on
        monday = row.due_on - timedelta(days=row.due_on.weekday())
        week = weeks.setdefault(monday, dict.fromkeys(Decision, 0))
        week[Decision(row.decision)] += row.services
    if made_on is None:
        return None, None, {}
    bars = [
        Bar(
            f"{monday:%d %b}" if number % 2 == 0 else "",
            {f"of-{decision}": float(count) for decision, count in week.items()},
        )
        for number, (monday, week) in enumerate(weeks.items())
    ]
    title = f"Services that fall due, by week, as forecast on {made_on}"
    return stacked(bars, title, "services a week"), made_on, weeks
