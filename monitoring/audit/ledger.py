"""The ledger: whatever is not at rest has a task, and a running fleet would come to it.

Which steps there are, and where each runs, is said here once more than in ``producers.steps``; a
test holds the two together.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sqlalchemy import text

from monitoring.audit.checks import Books, Check, Offence, Since, sql
from schemas.values import derived_id

# Name, queue, lane; a service is converged on its universe's queue, in its driver's lane.
STEPS = (
    ("price", "orders", "orders"),
    ("request", "billing", "renewals"),
    ("withdraw", "billing", "renewals"),
    ("charge", "billing", "gateway"),
    ("suspend", "billing", "destructive"),
    ("terminate", "billing", "destructive"),
    ("refund", "billing", "gateway"),
    ("remind", "reminders", "mail"),
    ("tell", "reminders", "mail"),
    ("send_link", "reminders", "mail"),
)
# On their universe's queue, in their driver's lane.
OF_DRIVERS = ("converge", "reconcile")
# On the queue webhooks, in their endpoint's lane.
OF_ENDPOINTS = ("deliver",)

# On the queue of whoever may write down what a person did, in a lane of its own.
BY_HAND = ("by_hand",)

# Parameters of the statements below.
PLACES: dict[str, Any] = {
    "names": [name for name, _, _ in STEPS],
    "queues": [queue for _, queue, _ in STEPS],
    "lanes": [lane for _, _, lane in STEPS],
}

_LANES = text("""
    SELECT lane FROM routes UNION SELECT lane FROM lane_pauses
    UNION SELECT unnest(CAST(:lanes AS text[]))
""")
_STANDING = text("SELECT lane, id FROM lane_pauses")
_TOLD = text("""
    SELECT detail->>'lane' AS lane, name, CAST(detail->>'pause' AS bigint) AS pause FROM events
    WHERE subject = ANY(:subjects) AND name IN ('lane.paused', 'lane.resumed')
""")


def _pauses(books: Books) -> Iterator[Offence]:
    """Lanes whose pauses are not those that their history says began and did not end.

    An event need not have the number of its pause, as those of the fleet itself: these are counted.
    """
    lanes = sorted(row.lane for row in books.rows(_LANES))
    standing, begun, ended = (defaultdict[str, list[int | None]](list) for _ in range(3))
    for row in books.rows(_STANDING):
        standing[row.lane].append(row.id)
    subjects = [derived_id("lane", lane) for lane in lanes]
    for row in books.rows(_TOLD, subjects=subjects):
        (begun if row.name == "lane.paused" else ended)[row.lane].append(row.pause)
    for lane in lanes:
        there, over = set(standing[lane]), set(ended[lane])
        gone = set(begun[lane]) - {None} - over - there
        if (
            len(standing[lane]) != len(begun[lane]) - len(ended[lane])
            or len(gone) > ended[lane].count(None)
            or there & over
        ):
            yield Offence("lane", lane)


CHECKS = (
    sql(
        "ledger.rest",
        "what is not at rest has a task",
        """
        SELECT 'order', o.id FROM orders AS o
        WHERE o.id BETWEEN :low AND :high AND o.state = 'accepted'
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'price' AND t.subject = o.id)
        UNION ALL
        SELECT 'order', o.id FROM orders AS o
        WHERE o.id BETWEEN :low AND :high AND o.state = 'priced' AND NOT EXISTS (
            SELECT FROM payment_requests AS r WHERE r.order_id = o.id AND r.state = 'open')
        UNION ALL
        SELECT 'payment request', r.id FROM payment_requests AS r
        WHERE r.id BETWEEN :low AND :high AND r.state = 'open' AND r.order_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'charge' AND t.subject = r.id)""",
    ),
    sql(
        "ledger.begun",
        "what was begun and not decided is asked about",
        """
        SELECT 'charge', c.key FROM charges AS c
        WHERE c.request_id BETWEEN :low AND :high AND c.state IN ('started', 'unknown')
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'charge' AND t.subject = c.request_id)
        UNION ALL
        SELECT 'refund', f.key FROM refunds AS f
        WHERE f.credit_note_id BETWEEN :low AND :high AND f.state IN ('started', 'unknown')
          AND NOT EXISTS (SELECT FROM tasks AS t
            JOIN credit_note_lines AS l ON l.credit_note_id = f.credit_note_id
            JOIN invoices AS i ON i.id = l.invoice_id
            WHERE t.name = 'refund' AND t.subject IN (l.service_id, i.request_id))
        UNION ALL
        SELECT 'operation', o.key FROM operations AS o
        WHERE o.service_id BETWEEN :low AND :high AND o.state IN ('pending', 'unknown')
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'converge' AND t.subject = o.service_id)""",
    ),
    sql(
        "ledger.batched",
        "a task is in exactly one batch, or waits for its time or for a person",
        """
        SELECT 'task', t.name || ' ' || t.subject FROM tasks AS t
        LEFT JOIN (SELECT name, unnest(subjects) AS subject FROM batches) AS b
            ON b.name = t.name AND b.subject = t.subject
        GROUP BY t.name, t.subject, t.batched
        HAVING count(b.subject) <> CAST(t.batched AS integer)""",
        since=Since.ONCE,
    ),
    sql(
        "ledger.batches",
        "a batch holds tasks of its own queue, name and lane, and as many as it says",
        """
        SELECT 'batch', b.id FROM batches AS b
        WHERE b.size <> cardinality(b.subjects) OR b.size < 1
           OR EXISTS (SELECT FROM unnest(b.subjects) AS u(subject)
            LEFT JOIN tasks AS t ON t.name = b.name AND t.subject = u.subject
            WHERE (t.queue, t.lane) IS DISTINCT FROM (b.queue, b.lane) OR t.state <> 'ready')""",
        since=Since.ONCE,
    ),
    sql(
        "ledger.places",
        "a task is of a step that there is, on its queue and in its lane",
        """
        SELECT 'task', t.name || ' ' || t.subject FROM tasks AS t
        LEFT JOIN unnest(CAST(:names AS text[]), CAST(:queues AS text[]), CAST(:lanes AS text[]))
            AS p(name, queue, lane) ON p.name = t.name
        LEFT JOIN services AS s ON t.name = 'converge' AND s.id = t.subject
        LEFT JOIN (
            SELECT c.id, c.driver, min(a.universe) AS universe
            FROM reconciliations AS c JOIN plans AS a ON a.driver = c.driver
            GROUP BY c.id, c.driver) AS r ON t.name = 'reconcile' AND r.id = t.subject
        LEFT JOIN (
            SELECT d.id, 'webhooks' AS queue, 'webhook:' || e.name AS lane
            FROM webhook_deliveries AS d JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
            ) AS w ON t.name = 'deliver' AND w.id = t.subject
        WHERE CASE WHEN t.name = 'by_hand' THEN t.lane <> 'by_hand'
                OR t.queue NOT IN ('billing', 'web', 'dedicated', 'cloud', 'telecom')
            ELSE t.queue IS DISTINCT FROM coalesce(p.queue, s.universe, r.universe, w.queue)
             OR t.lane IS DISTINCT FROM
                coalesce(p.lane, 'driver:' || coalesce(s.driver, r.driver), w.lane) END""",
        since=Since.ONCE,
    ),
    sql(
        "ledger.subjects",
        "a task is about something that there is",
        """
        SELECT 'task', t.name || ' ' || t.subject FROM tasks AS t
        WHERE NOT CASE
            WHEN t.name IN ('price', 'tell') THEN EXISTS (SELECT FROM orders WHERE id = t.subject)
            WHEN t.name = 'charge'
                THEN EXISTS (SELECT FROM payment_requests WHERE id = t.subject)
            WHEN t.name = 'refund'
                THEN EXISTS (SELECT FROM payment_requests WHERE id = t.subject)
                  OR EXISTS (SELECT FROM services WHERE id = t.subject)
            WHEN t.name = 'remind' THEN EXISTS (SELECT FROM emails WHERE id = t.subject)
            WHEN t.name = 'by_hand'
                THEN EXISTS (SELECT FROM bulk_operations WHERE id = t.subject)
            WHEN t.name = 'send_link'
                THEN EXISTS (SELECT FROM link_emails WHERE id = t.subject)
            WHEN t.name IN ('converge', 'withdraw', 'suspend', 'terminate')
                THEN EXISTS (SELECT FROM services WHERE id = t.subject)
            WHEN t.name = 'reconcile'
                THEN EXISTS (SELECT FROM reconciliations WHERE id = t.subject)
            WHEN t.name = 'deliver'
                THEN EXISTS (SELECT FROM webhook_deliveries WHERE id = t.subject)
            ELSE true END""",
        since=Since.ONCE,
    ),
    # Of defaults of an hour at most; whoever sets longer ones is told.
    sql(
        "ledger.times",
        "a task is delayed by a month at most; a batch is dispatched or leased for a day at most",
        """
        SELECT 'task', name || ' ' || subject FROM tasks
        WHERE (state = 'ready' AND run_at > CAST(:db_now AS timestamptz) + interval '31 days')
           OR run_at < CAST(:db_now AS timestamptz) - interval '10 years'
        UNION ALL
        SELECT 'batch', CAST(id AS text) FROM batches
        WHERE until > CAST(:db_now AS timestamptz) + interval '1 day'
           OR run_at > CAST(:db_now AS timestamptz) + interval '1 day'
           OR run_at < CAST(:db_now AS timestamptz) - interval '10 years'
           OR (state <> 'ready' AND until IS NULL) OR starts < 0 OR dispatches < 0""",
        since=Since.ONCE,
    ),
    sql(
        "ledger.failed",
        "a task that failed says why, and one that has not failed may still be tried",
        """
        SELECT 'task', name || ' ' || subject FROM tasks
        WHERE (state = 'failed' AND (reason IS NULL OR batched))
           OR attempts < 0 OR starts < 0 OR wanted < 1 OR (state = 'ready' AND starts >= 5)""",
        since=Since.ONCE,
    ),
    sql(
        "ledger.routes",
        "relays know the way of every task",
        """
        SELECT DISTINCT 'task', t.name || ' on ' || t.queue || ' in ' || t.lane FROM tasks AS t
        WHERE t.state = 'ready' AND NOT EXISTS (SELECT FROM routes AS r
            WHERE (r.queue, r.name, r.lane) = (t.queue, t.name, t.lane))""",
        since=Since.ONCE,
    ),
    sql(
        "ledger.enqueuers",
        "every step may be asked for by somebody, on the queue that it runs on",
        """
        SELECT 'step', p.name FROM unnest(CAST(:names AS text[]), CAST(:queues AS text[]))
            AS p(name, queue)
        WHERE NOT EXISTS (SELECT FROM enqueuers AS e JOIN pg_roles AS o ON o.rolname = e.role
            WHERE e.step = p.name AND e.queue = p.queue)
        UNION ALL
        SELECT 'step', 'converge on ' || p.universe FROM plans AS p
        WHERE NOT EXISTS (SELECT FROM enqueuers AS e
            WHERE e.step = 'converge' AND e.queue = p.universe)
        GROUP BY p.universe""",
        since=Since.ONCE,
    ),
    Check(
        "ledger.pauses",
        "a lane has the pauses that its history says began and did not end",
        _pauses,
        whole=True,
        since=Since.ONCE,
    ),
)
