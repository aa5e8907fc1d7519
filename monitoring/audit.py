"""The invariants of the whole, checked on the books: ours, and the far side's where it is known.

Each check is one short statement that returns the ids that break it.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from schemas.books import BookUnavailable, FarSides
from schemas.errors import ConfigurationError

SHOWN = 20
RECHECK_SECONDS = 1.0

CHECKS = {
    "every line of an accepted order has exactly its quantity of services": """
        SELECT o.id FROM orders AS o
        WHERE o.state IN ('priced', 'paid', 'delivered', 'partly_delivered')
        AND (SELECT sum(quantity) FROM order_lines AS l WHERE l.order_id = o.id)
            <> (SELECT count(*) FROM services AS s WHERE s.order_id = o.id)""",
    "an order's state follows from its services": """
        SELECT o.id FROM orders AS o JOIN (
            SELECT order_id, count(*) AS n,
                count(*) FILTER (WHERE state IN ('active', 'suspended', 'terminated')) AS there,
                count(*) FILTER (WHERE state = 'cancelled') AS cancelled
            FROM services GROUP BY order_id) AS s ON s.order_id = o.id
        WHERE (o.state = 'delivered' AND there <> n)
           OR (o.state = 'partly_delivered' AND (there = 0 OR there + cancelled <> n))
           OR (o.state = 'cancelled' AND cancelled <> n)
           OR (o.state = 'paid' AND there + cancelled = n)""",
    "a cancelled service has its money back": """
        SELECT l.service_id FROM invoice_lines AS l JOIN services AS s ON s.id = l.service_id
        WHERE s.state = 'cancelled'
          AND NOT EXISTS (SELECT FROM credit_note_lines AS c
            WHERE c.invoice_id = l.invoice_id AND c.invoice_line = l.number)
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'refund' AND t.subject = l.service_id)""",
    "a credit note is refunded, or a refund is on its way": """
        SELECT n.id FROM credit_notes AS n
        WHERE n.total > 0 AND NOT EXISTS (SELECT FROM refunds AS f
            WHERE f.credit_note_id = n.id AND f.state = 'succeeded' AND f.amount = n.total)
          AND NOT EXISTS (SELECT FROM credit_note_lines AS c
            JOIN invoices AS i ON i.id = c.invoice_id
            JOIN tasks AS t ON t.name = 'refund' AND t.subject IN (c.service_id, i.request_id)
            WHERE c.credit_note_id = n.id)""",
    "a payment request has at most one successful charge": """
        SELECT request_id FROM charges WHERE state = 'succeeded'
        GROUP BY request_id HAVING count(*) > 1""",
    "a payment method pays for its own customer only": """
        SELECT p.id FROM (
            SELECT id, id AS customer_id, payment_method_id FROM customers
            UNION ALL
            SELECT CAST(id AS text), customer_id, payment_method_id FROM orders
            UNION ALL
            SELECT CAST(id AS text), customer_id, payment_method_id FROM services
            UNION ALL
            SELECT CAST(id AS text), customer_id, payment_method_id FROM payment_requests
            UNION ALL
            SELECT CAST(c.key AS text), r.customer_id, c.payment_method_id FROM charges AS c
            JOIN payment_requests AS r ON r.id = c.request_id) AS p
        LEFT JOIN payment_methods AS m ON m.id = p.payment_method_id
        WHERE p.payment_method_id IS NOT NULL AND m.customer_id IS DISTINCT FROM p.customer_id""",
    "an order, its services and what is asked for them are one customer's": """
        SELECT s.id FROM services AS s JOIN orders AS o ON o.id = s.order_id
        WHERE s.customer_id IS DISTINCT FROM o.customer_id
        UNION ALL
        SELECT r.id FROM payment_requests AS r JOIN orders AS o ON o.id = r.order_id
        WHERE r.customer_id IS DISTINCT FROM o.customer_id
        UNION ALL
        SELECT r.id FROM payment_requests AS r
        JOIN request_lines AS l ON l.request_id = r.id JOIN services AS s ON s.id = l.service_id
        WHERE s.customer_id <> r.customer_id""",
    "a request is paid if and only if money was taken for it": """
        SELECT r.id FROM payment_requests AS r
        LEFT JOIN charges AS c ON c.request_id = r.id AND c.state = 'succeeded'
        WHERE (r.state = 'paid') <> (c.key IS NOT NULL) OR c.amount <> r.total""",
    "every paid request has its invoice, of the same amount": """
        SELECT r.id FROM payment_requests AS r LEFT JOIN invoices AS i ON i.request_id = r.id
        -- What cost nothing takes no number; in an earlier release it took one.
        WHERE (r.state = 'paid' AND (r.total > 0 OR i.id IS NOT NULL)) <> (i.id IS NOT NULL)
           OR (i.net, i.tax, i.total, i.currency) <> (r.net, r.tax, r.total, r.currency)""",
    "an invoice is the sum of its lines": """
        SELECT i.id FROM invoices AS i JOIN (
            SELECT invoice_id, sum(net) AS net, sum(tax) AS tax FROM invoice_lines
            GROUP BY invoice_id) AS l ON l.invoice_id = i.id
        WHERE (i.net, i.tax, i.total) <> (l.net, l.tax, l.net + l.tax)""",
    # Of each rate rounded once; an earlier release rounded each line.
    "the tax of an invoice is that on its taxable amounts": """
        SELECT invoice_id FROM invoice_lines
        GROUP BY invoice_id, tax_rate
        HAVING sum(tax) <> round(sum(net) * tax_rate / 100)
           AND sum(tax) <> sum(round(net * tax_rate / 100))""",
    "credit notes of all lines of an invoice give back its tax": """
        SELECT l.invoice_id FROM invoice_lines AS l LEFT JOIN credit_note_lines AS c
        ON c.invoice_id = l.invoice_id AND c.invoice_line = l.number
        WHERE l.invoice_id IN (SELECT invoice_id FROM credit_notes)
        GROUP BY l.invoice_id, l.tax_rate
        HAVING sum(c.tax) > sum(l.tax) OR count(*) = count(c.tax) AND sum(c.tax) <> sum(l.tax)""",
    "a credit note is the sum of its lines, at its invoice's amounts": """
        SELECT n.id FROM credit_notes AS n JOIN (
            SELECT c.credit_note_id, sum(c.net) AS net, sum(c.tax) AS tax,
                bool_and((c.net, c.tax_rate) = (l.net, l.tax_rate)) AS same
            FROM credit_note_lines AS c JOIN invoice_lines AS l
            ON l.invoice_id = c.invoice_id AND l.number = c.invoice_line
            GROUP BY c.credit_note_id) AS c ON c.credit_note_id = n.id
        WHERE NOT c.same OR (n.net, n.tax, n.total) <> (c.net, c.tax, c.net + c.tax)""",
    "numbers of a series are 1..n, dates never go back": """
        SELECT series || '-' || number FROM (
            SELECT series, number, issued_on,
                row_number() OVER w AS expected, lag(issued_on) OVER w AS before
            FROM (SELECT series, number, issued_on FROM invoices
                  UNION ALL SELECT series, number, issued_on FROM credit_notes) AS d
            WINDOW w AS (PARTITION BY series ORDER BY number)) AS n
        WHERE number <> expected OR issued_on < before""",
    "a series' counter is its last number": """
        SELECT s.code FROM invoice_series AS s
        WHERE s.last_number <> (SELECT count(*) FROM (
            SELECT series FROM invoices UNION ALL SELECT series FROM credit_notes) AS d
            WHERE d.series = s.code)""",
    "every paid period of a service is on one line of a paid request, and of its invoice": """
        SELECT s.id FROM services AS s
        WHERE s.paid_periods - s.imported_periods <> (SELECT count(*) FROM request_lines AS q
            JOIN payment_requests AS r ON r.id = q.request_id AND r.state = 'paid'
            LEFT JOIN invoices AS i ON i.request_id = r.id
            LEFT JOIN invoice_lines AS l ON l.invoice_id = i.id AND l.number = q.number
                AND (l.service_id, l.period_number) = (q.service_id, q.period_number)
            WHERE q.service_id = s.id AND q.period_number > 0 AND q.refused_at IS NULL
              AND (l.invoice_id IS NOT NULL OR r.total = 0))""",
    "a delivered service expires at its anchor plus its paid periods": """
        SELECT s.id FROM services AS s
        JOIN subsidiaries AS u ON u.code = s.subsidiary
        WHERE s.anchor IS NOT NULL AND (s.expires_at AT TIME ZONE (u.definition->>'timezone'))
            <> (s.anchor + make_interval(months => s.period_months * s.paid_periods))::timestamp
          AND NOT EXISTS (SELECT FROM recomputations AS w WHERE w.change_id IS NOT NULL
            AND w.subsidiary = s.subsidiary AND (w.after IS NULL OR w.after < s.id))""",
    "what should be is what was confirmed, or is being worked on": """
        SELECT s.id FROM services AS s
        WHERE (s.desired <> s.confirmed OR s.state = 'delivering'
            OR (s.confirmed <> 'absent' AND s.confirmed_until < (s.anchor
                + make_interval(months => s.period_months * s.paid_periods))::date))
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)""",
    "a service's state agrees with what was confirmed": """
        SELECT s.id FROM services AS s
        WHERE s.confirmed <> CASE s.state WHEN 'active' THEN 'active'
                WHEN 'suspended' THEN 'suspended' ELSE 'absent' END
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)""",
    "what was begun and not decided is asked about": """
        SELECT c.key FROM charges AS c WHERE c.state IN ('started', 'unknown')
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'charge' AND t.subject = c.request_id)
        UNION ALL
        SELECT f.key FROM refunds AS f
        JOIN credit_note_lines AS l ON l.credit_note_id = f.credit_note_id
        JOIN invoices AS i ON i.id = l.invoice_id
        WHERE f.state IN ('started', 'unknown') AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'refund' AND t.subject IN (l.service_id, i.request_id))
        UNION ALL
        SELECT o.key FROM operations AS o WHERE o.state IN ('pending', 'unknown')
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'converge' AND t.subject = o.service_id)""",
    "what is not at rest has a task": """
        SELECT o.id FROM orders AS o WHERE o.state = 'accepted'
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'price' AND t.subject = o.id)
        UNION ALL
        SELECT o.id FROM orders AS o WHERE o.state = 'priced' AND NOT EXISTS (
            SELECT FROM payment_requests AS r WHERE r.order_id = o.id AND r.state = 'open')
        UNION ALL
        SELECT r.id FROM payment_requests AS r WHERE r.state = 'open' AND r.order_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'charge' AND t.subject = r.id)""",
    "a task is in exactly one batch, or waits for its time or for a person": """
        SELECT t.subject FROM tasks AS t
        LEFT JOIN (SELECT name, unnest(subjects) AS subject FROM batches) AS b
            ON b.name = t.name AND b.subject = t.subject
        GROUP BY t.name, t.subject, t.batched
        HAVING count(b.subject) <> CAST(t.batched AS integer)""",
    "an open request of renewals is on services that are there, and they on it": """
        SELECT l.request_id FROM request_lines AS l
        JOIN payment_requests AS p ON p.id = l.request_id
        JOIN services AS s ON s.id = l.service_id
        LEFT JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        WHERE p.state = 'open' AND p.order_id IS NULL AND (r.request_id IS DISTINCT FROM p.id
            OR s.desired = 'absent' OR s.state NOT IN ('active', 'suspended')
            OR l.released_at IS NOT NULL)
        UNION
        SELECT r.request_id FROM renewals AS r
        JOIN services AS s ON s.id = r.service_id AND r.period_number = s.paid_periods + 1
        JOIN payment_requests AS p ON p.id = r.request_id
        WHERE p.state <> 'open'""",
    # What was told is being told anew if it was found since that the amount is another one.
    "a renewal is asked for, priced and announced in its subsidiary's currency": """
        SELECT s.id FROM services AS s
        JOIN renewals AS r ON r.service_id = s.id AND r.period_number = s.paid_periods + 1
        JOIN subsidiaries AS u ON u.code = s.subsidiary
        LEFT JOIN payment_requests AS p ON p.id = r.request_id
        WHERE s.state IN ('active', 'suspended') AND s.desired <> 'absent'
          AND (r.currency <> u.definition->>'currency'
            OR (p.state = 'open' AND p.currency <> u.definition->>'currency')
            OR (r.announced_currency <> u.definition->>'currency'
              AND (r.dearer_at IS NULL OR r.dearer_at < r.announced_at)))
          AND s.next_step IS DISTINCT FROM 'withdraw'
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'withdraw' AND t.subject = s.id)
          AND NOT EXISTS (SELECT FROM recomputations AS w WHERE w.change_id IS NOT NULL
            AND w.subsidiary = s.subsidiary AND (w.after IS NULL OR w.after < s.id))
          AND NOT EXISTS (SELECT FROM charges AS c
            WHERE c.request_id = p.id AND c.state IN ('started', 'unknown'))""",
    "what renews has a next step, or a task that is about it": """
        SELECT s.id FROM services AS s JOIN rollouts USING (brand, subsidiary)
        WHERE s.state IN ('active', 'suspended') AND s.desired <> 'absent'
          AND s.next_step_at IS NULL
          AND NOT EXISTS (SELECT FROM recomputations)
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.subject IN (s.id, s.next_subject) AND t.name <> 'price')
          AND NOT EXISTS (SELECT FROM renewals AS r JOIN tasks AS t ON t.subject = r.request_id
            WHERE r.service_id = s.id AND r.period_number = s.paid_periods + 1)
          AND NOT EXISTS (SELECT FROM notices AS n JOIN tasks AS t ON t.subject = n.email_id
            WHERE n.service_id = s.id AND n.expires_at = s.expires_at)""",
    "what is not in the rollout was never reminded, charged or ended by itself": """
        SELECT s.id FROM services AS s
        WHERE NOT EXISTS (SELECT FROM rollouts AS o
            WHERE (o.brand, o.subsidiary) = (s.brand, s.subsidiary))
          AND s.next_step_at IS NOT NULL AND s.next_step <> 'withdraw'
          AND NOT EXISTS (SELECT FROM recomputations)""",
    "an e-mail that was sent says what was claimed for it": """
        SELECT e.id FROM emails AS e WHERE e.sent_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM notices AS n WHERE n.email_id = e.id)""",
    "an e-mail that was begun was sent, or is being sent": """
        SELECT e.id FROM emails AS e
        WHERE e.begun_at IS NOT NULL AND e.sent_at IS NULL AND e.given_up_at IS NULL
          AND EXISTS (SELECT FROM notices AS n JOIN services AS s ON s.id = n.service_id
            WHERE n.email_id = e.id AND s.expires_at = n.expires_at AND s.desired <> 'absent')
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'remind' AND t.subject = e.id)""",
    "what an operator has suspended is to stay so": """
        SELECT s.id FROM services AS s WHERE s.held_at IS NOT NULL AND s.desired = 'active'""",
    "what is suspended was not paid, or an operator has it so": """
        SELECT s.id FROM services AS s
        WHERE s.state = 'suspended' AND s.desired = 'suspended'
          AND s.suspended_at IS NULL AND s.held_at IS NULL
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'converge' AND t.subject = s.id)""",
    "what was suspended or terminated for want of payment was told so before": """
        SELECT s.id FROM services AS s WHERE s.state = 'suspended' AND s.imported_periods = 0
          AND s.desired = 'suspended' AND (s.held_at IS NULL OR s.suspended_at IS NOT NULL)
          AND NOT EXISTS (SELECT FROM notices AS n JOIN emails AS e ON e.id = n.email_id
            WHERE n.service_id = s.id AND n.expires_at = s.expires_at
              AND (e.sent_at IS NOT NULL OR e.refused_at IS NOT NULL))""",
    "what was paid for and refused is given back": """
        SELECT l.request_id FROM request_lines AS l
        JOIN invoices AS i ON i.request_id = l.request_id
        WHERE l.refused_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM credit_note_lines AS c
            WHERE c.invoice_id = i.id AND c.invoice_line = l.number)
          AND NOT EXISTS (SELECT FROM tasks AS t
            WHERE t.name = 'refund' AND t.subject = l.request_id)""",
}  # fmt: skip


@dataclass(slots=True)
class Finding:
    """An invariant and what breaks it; ``ids`` are the first ones."""

    invariant: str
    broken: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, ids: list[str]) -> None:
        self.broken += len(ids)
        self.ids = (self.ids + ids)[:SHOWN]


def audit(tx: Connection, far_sides: FarSides | None = None) -> list[Finding]:
    """Check every invariant; broken ones have ids.

    Args:
        far_sides: whose books are compared with ours, to the cent.

    Raises:
        ConfigurationError: a book cannot be read.
    """
    _take_snapshot(tx)
    findings = []
    for invariant, query in CHECKS.items():
        finding = Finding(invariant)
        finding.add([str(value) for value in tx.execute(text(query)).scalars()])
        findings.append(finding)
    if far_sides is not None:
        findings += [_compare(tx, far_sides, *comparison) for comparison in COMPARISONS.items()]
    return findings


def _take_snapshot(tx: Connection) -> None:
    """Every statement sees the same moment: a busy fleet is not mistaken for a broken one."""
    tx.rollback()
    tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    # The far side's books may take their time to be read.
    tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


Differences = Callable[[Connection, FarSides], set[str]]


def _compare(
    tx: Connection, far_sides: FarSides, invariant: str, differences: Differences
) -> Finding:
    """Two books cannot be read at one moment: what differs is looked at once more."""
    try:
        differing = differences(tx, far_sides)
        if differing:
            time.sleep(RECHECK_SECONDS)
            _take_snapshot(tx)
            differing &= differences(tx, far_sides)
    except BookUnavailable as error:
        raise ConfigurationError(f"cannot read a far side's book: {error}") from None
    finding = Finding(invariant)
    finding.add(sorted(differing))
    return finding


_OUR_MONEY = text("""
    SELECT 'charge', c.key, i.total, i.currency FROM invoices AS i
    JOIN charges AS c ON c.request_id = i.request_id AND c.state = 'succeeded'
    LEFT JOIN payment_methods AS m ON m.id = c.payment_method_id
    WHERE i.total > 0 AND coalesce(m.gateway, 'default') = ANY(:gateways)
    UNION ALL
    SELECT 'refund', f.key, n.total, n.currency FROM credit_notes AS n
    JOIN refunds AS f ON f.credit_note_id = n.id AND f.state = 'succeeded' AND NOT f.by_hand
    JOIN charges AS c ON c.key = f.charge_key
    LEFT JOIN payment_methods AS m ON m.id = c.payment_method_id
    WHERE coalesce(m.gateway, 'default') = ANY(:gateways)
""")
# A charge that is still asked about is neither taken nor not taken.
_UNDECIDED = text("""
    SELECT key FROM charges WHERE state IN ('started', 'unknown')
    UNION ALL SELECT key FROM refunds WHERE state IN ('started', 'unknown')
""")


def _money(tx: Connection, far_sides: FarSides) -> set[str]:
    books = far_sides.money()
    theirs = Counter(
        (entry.kind, entry.key, entry.amount.amount, entry.amount.currency)
        for book in books.values()
        for entry in book
    )
    ours = Counter(
        (kind, str(key), amount, currency)
        for kind, key, amount, currency in tx.execute(_OUR_MONEY, {"gateways": list(books)})
    )
    undecided = set(map(str, tx.execute(_UNDECIDED).scalars()))
    differing = (theirs - ours) + (ours - theirs)
    return {f"{kind} {key}" for kind, key, _, _ in differing if key not in undecided}


# What was taken over is known there by its own name until something is done with it.
_OUR_RESOURCES = text("""
    SELECT driver, id, state FROM services AS s
    WHERE state IN ('active', 'suspended') AND driver = ANY(:drivers)
      AND (order_id IS NOT NULL OR EXISTS (SELECT FROM operations AS o WHERE o.service_id = s.id))
""")
_CONVERGING = text("SELECT subject FROM tasks WHERE name = 'converge'")


def _resources(tx: Connection, far_sides: FarSides) -> set[str]:
    lists = far_sides.resources()
    theirs = Counter(
        (driver, entry.service_id or entry.resource_id, str(entry.state))
        for driver, entries in lists.items()
        for entry in entries
    )
    ours = Counter(
        (driver, str(service), state)
        for driver, service, state in tx.execute(_OUR_RESOURCES, {"drivers": list(lists)})
    )
    busy = set(map(str, tx.execute(_CONVERGING).scalars()))
    differing = (theirs - ours) + (ours - theirs)
    return {service for _, service, _ in differing if service not in busy}


COMPARISONS: dict[str, Differences] = {
    "what the gateway took and gave back is what invoices and credit notes say": _money,
    "every active service has exactly one live resource, every ended one none": _resources,
}
