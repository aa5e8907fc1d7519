"""What a person did past the fleet, at an infrastructure, a gateway or a bank, is said of failed
tasks by a bulk operation.

A scheduler hands it over to workers of the queue: they have the database role that may write such a
thing down (``workers/stating.py``), and nobody else has.
"""

import uuid
from collections.abc import Mapping

from sqlalchemy import Connection, text

from producers import ledger
from producers.control.selection import FITS, Filters, State, Task, TaskId, find, resolve
from producers.steps import BY_HAND, CONVERGE, STEPS, ByHand, by_hand_place
from schemas.errors import AutorenewError
from schemas.values import BulkKind, ResourceState, ServiceState


class OneByOne(AutorenewError):
    """What is said is about one task alone, and several fit, or none."""

    code = "one_by_one"


BY_HAND_OF = {BulkKind.DONE: ByHand.DONE, BulkKind.SETTLE: ByHand.SETTLED}

WRITTEN = "written down"

# As ``_LOOK`` of ``bulk_running``. Whoever writes it down says so, or why not, in the transaction
# in which the task ends; a failure that is gone without that was not what the operator spoke of.
LOOK = text(f"""
    WITH seen AS MATERIALIZED (
        SELECT b.number, b.outcome, t.subject IS NULL AS is_gone
        FROM (
            SELECT * FROM bulk_tasks
            WHERE bulk_id = :id AND state = 'sent' AND number > :after
            ORDER BY number LIMIT :limit
        ) AS b
        LEFT JOIN tasks AS t ON t.name = b.name AND t.subject = b.subject AND t.state = 'failed'
            AND (t.first_failed_at, t.total_attempts)
                IS NOT DISTINCT FROM (b.first_failed_at, b.total_attempts)
    ), judged AS (
        SELECT number, CASE WHEN outcome = '{WRITTEN}' THEN 'done'
            WHEN outcome IS NOT NULL OR is_gone THEN 'failed' ELSE 'sent' END AS becomes
        FROM seen
    ), changed AS (
        UPDATE bulk_tasks AS b SET state = j.becomes,
            outcome = coalesce(b.outcome, 'it was tried again, or ended, meanwhile')
        FROM judged AS j
        WHERE b.bulk_id = :id AND b.number = j.number AND j.becomes <> 'sent'
    )
    SELECT count(*) AS seen, coalesce(max(number), 0) AS last,
        count(*) FILTER (WHERE becomes <> 'sent') AS changed,
        count(*) FILTER (WHERE becomes = 'done') AS done,
        count(*) FILTER (WHERE becomes = 'failed') AS failed,
        NULL::integer AS same
    FROM judged
""")
_QUEUE = text("""
    SELECT min(t.queue) FROM tasks AS t JOIN bulk_tasks AS b
        ON b.name = t.name AND b.subject = t.subject
    WHERE b.bulk_id = :id AND b.number = ANY(:numbers)
""")


def hand_over(
    tx: Connection, bulk: uuid.UUID, kind: BulkKind, tasks: Mapping[TaskId, int]
) -> tuple[set[int], dict[int, str]]:
    """Have workers write it down; all of them are of one role.

    Args:
        tasks: of the operation -> their numbers.

    Returns:
        The numbers of those handed over; and why not, of the others.
    """
    by_hand = BY_HAND_OF[kind]
    why = {
        number: f"a failed {task.name} is not told as {by_hand}"
        for task, number in tasks.items()
        if task.name not in STEPS or STEPS[task.name].by_hand is not by_hand
    }
    sent = set(tasks.values()) - why.keys()
    if sent:
        queue = tx.execute(_QUEUE, {"id": bulk, "numbers": sorted(sent)}).scalar_one()
        ledger.enqueue(tx, BY_HAND, [(bulk, by_hand_place(queue))])
    return sent, why


_TELLABLE = text(f"""
    SELECT count(*) AS total, count(*) FILTER (
        WHERE s.state <> '{ServiceState.DELIVERING}' OR s.desired = '{ResourceState.ABSENT}'
    ) AS tellable
    FROM tasks AS t LEFT JOIN services AS s ON s.id = t.subject
    WHERE t.state = 'failed' AND t.name = '{CONVERGE}' AND {FITS}
""")


def tellable(tx: Connection, filters: Filters) -> tuple[int, int]:
    """How many failed tasks of services fit, and how many of them may be told as done by hand: what
    is not delivered has nothing at its infrastructure that could be as it should.

    Raises:
        UnknownName: a filter names nothing that is known.
        UnknownLane: it names no lane.
    """
    _, parameters = resolve(tx, filters)
    row = tx.execute(_TELLABLE, parameters).one()
    return row.total, row.tellable


def settleable(tx: Connection, name: str, *, upstream: str | None = None) -> Task:
    """The one failed payment that a name means.

    Raises:
        UnknownName: there is no such thing.
        OneByOne: several of it have failed, or none.
    """
    found = find(
        tx, Filters(names=(name,), upstream=upstream, states=frozenset({State.FAILED}))
    ).tasks
    payments = [
        task for task in found if task.name in STEPS and STEPS[task.name].by_hand is ByHand.SETTLED
    ]
    if len(payments) == 1:
        return payments[0]
    if not payments:
        raise OneByOne(f"{name!r} has no failed charge or refund; see `autorenew failed list`")
    listed = ", ".join(f"{task.name} of {task.subject}" for task in payments[:10])
    raise OneByOne(f"{name!r} means several payments, which end each in its own way: {listed}")
