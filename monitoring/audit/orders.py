"""Orders: what was accepted is what became services and a payment request."""

from collections.abc import Iterator

from sqlalchemy import text

from monitoring.audit.checks import Books, Check, Offence, sql
from schemas.values import derived_id

_ORDERS = text("SELECT id, upstream, key FROM orders WHERE id BETWEEN :low AND :high")
_UNITS = text("""
    SELECT id, order_id, line, unit FROM services
    WHERE id BETWEEN :low AND :high AND order_id IS NOT NULL
""")
_ASKED_FOR = text("""
    SELECT id, order_id FROM payment_requests
    WHERE id BETWEEN :low AND :high AND order_id IS NOT NULL
""")


def _named_otherwise(books: Books) -> Iterator[Offence]:
    """Orders, their services and their requests, whose ids follow from what was ordered."""
    for row in books.stream(_ORDERS):
        if row.id != derived_id("order", row.upstream, row.key):
            yield Offence("order", str(row.id))
    for row in books.stream(_UNITS):
        if row.id != derived_id(row.order_id, row.line, row.unit):
            yield Offence("service", str(row.id))
    for row in books.stream(_ASKED_FOR):
        if row.id != derived_id("request", row.order_id):
            yield Offence("payment request", str(row.id))


CHECKS = (
    Check(
        "orders.ids",
        "an order is named by its upstream and key, and what came of it by the order",
        _named_otherwise,
    ),
    sql(
        "orders.quantity",
        "every line of an accepted order has exactly its quantity of services",
        """
        SELECT DISTINCT 'order', coalesce(l.order_id, s.order_id) FROM (
            SELECT o.id AS order_id, l.number, coalesce(l.quantity, -1) AS quantity
            FROM orders AS o LEFT JOIN order_lines AS l ON l.order_id = o.id
            WHERE o.id BETWEEN :low AND :high AND (
                o.state IN ('priced', 'paid', 'delivered', 'partly_delivered')
                OR o.state = 'cancelled'
                    AND EXISTS (SELECT FROM payment_requests AS r WHERE r.order_id = o.id))
        ) AS l
        FULL JOIN (
            SELECT order_id, line, count(*) AS units, max(unit) AS last FROM services
            WHERE order_id BETWEEN :low AND :high GROUP BY order_id, line
        ) AS s ON s.order_id = l.order_id AND s.line = l.number
        WHERE (l.quantity, l.quantity) IS DISTINCT FROM (s.units, s.last)""",
    ),
    sql(
        "orders.complete",
        "an accepted order has lines, numbered from 1 on, of plans and contracts that there are",
        """
        SELECT 'order', o.id FROM orders AS o
        LEFT JOIN (
            SELECT order_id, count(*) AS lines, min(number) AS first, max(number) AS last,
                min(quantity) AS least
            FROM order_lines WHERE order_id BETWEEN :low AND :high GROUP BY order_id
        ) AS l ON l.order_id = o.id
        WHERE o.id BETWEEN :low AND :high
          AND CASE o.state WHEN 'refused' THEN l.lines IS NOT NULL
            ELSE (l.first, l.last) IS DISTINCT FROM (1, l.lines) OR l.least < 1 END
        UNION ALL
        SELECT DISTINCT 'order', l.order_id FROM order_lines AS l
        LEFT JOIN orders AS o ON o.id = l.order_id
        LEFT JOIN plans AS p ON p.code = l.plan
        LEFT JOIN subsidiaries AS u ON u.code = o.subsidiary
        WHERE l.order_id BETWEEN :low AND :high AND (o.id IS NULL OR p.code IS NULL
            OR (l.setup IS NULL) <> (l.renewal IS NULL)
            OR (l.renewal IS NULL) <> (l.currency IS NULL)
            OR l.period_months < 1 OR l.setup < 0 OR l.renewal < 0
            OR (l.currency <> u.definition->>'currency' AND NOT EXISTS (
                SELECT FROM subsidiary_changes AS c WHERE c.subsidiary = o.subsidiary
                  AND c.former->>'currency' = l.currency))
            -- Later the plan may be under another contract.
            OR (p.contract IS NOT NULL AND o.state = 'accepted' AND NOT EXISTS (
                SELECT FROM agreements AS a
                WHERE a.customer_id = o.customer_id AND a.contract = p.contract)))""",
    ),
    sql(
        "orders.state",
        "an order's state follows from its services",
        """
        SELECT 'order', o.id FROM orders AS o JOIN (
            SELECT order_id, count(*) AS n,
                count(*) FILTER (WHERE state IN ('active', 'suspended', 'terminated')) AS there,
                count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
                count(*) FILTER (WHERE state = 'pending') AS pending
            FROM services WHERE order_id BETWEEN :low AND :high
            GROUP BY order_id) AS s ON s.order_id = o.id
        WHERE (o.state = 'delivered' AND there <> n)
           OR (o.state = 'partly_delivered' AND (there = 0 OR there + cancelled <> n))
           OR (o.state = 'cancelled' AND cancelled <> n)
           OR (o.state = 'paid' AND (there + cancelled = n OR pending > 0))
           OR (o.state = 'priced' AND pending <> n)
           OR o.state IN ('accepted', 'refused')""",
    ),
    sql(
        "orders.lines",
        "a service of an order is what its line says, or an operator's correction of its"
        " configuration: plan, period, configuration",
        """
        SELECT 'service', s.id FROM services AS s
        LEFT JOIN order_lines AS l ON l.order_id = s.order_id AND l.number = s.line
        WHERE s.id BETWEEN :low AND :high AND s.order_id IS NOT NULL
          AND (s.plan, s.period_months, s.configuration)
            IS DISTINCT FROM (l.plan, l.period_months, l.configuration)
          AND ((s.plan, s.period_months) IS DISTINCT FROM (l.plan, l.period_months)
            OR NOT EXISTS (SELECT FROM events AS e WHERE e.subject = s.id
                AND e.name = 'service.edited' AND e.detail->'after' = s.configuration))""",
    ),
    sql(
        "orders.request",
        "an order has the payment request that its state asks for",
        """
        SELECT 'order', o.id FROM orders AS o LEFT JOIN payment_requests AS r ON r.order_id = o.id
        WHERE o.id BETWEEN :low AND :high AND NOT CASE o.state
            WHEN 'accepted' THEN r.id IS NULL
            WHEN 'refused' THEN r.id IS NULL
            WHEN 'priced' THEN coalesce(r.state, '') = 'open'
            WHEN 'cancelled' THEN CASE
                WHEN r.id IS NULL THEN o.reason = 'given_up'
                WHEN o.reason = 'payment_declined' THEN r.state = 'voided'
                WHEN o.reason IS NULL THEN r.state = 'paid'
                ELSE r.state IN ('voided', 'paid') END
            ELSE coalesce(r.state, '') = 'paid' END""",
    ),
    sql(
        "orders.facts",
        "an order has a customer or problems, and an end if its state is one",
        """
        SELECT 'order', id FROM orders
        WHERE id BETWEEN :low AND :high AND (
            (state = 'refused') <> (problems IS NOT NULL AND problems <> '[]')
            OR jsonb_typeof(problems) <> 'array'
            OR (state = 'refused') <> (customer_id IS NULL)
            OR (customer_id IS NULL) <> (subsidiary IS NULL)
            OR (customer_id IS NULL) <> (country IS NULL)
            OR (state IN ('delivered', 'partly_delivered', 'cancelled')) <> (ended_at IS NOT NULL)
            OR key = '' OR upstream = '' OR octet_length(body_hash) < 16
            OR coalesce(reason, 'given_up') NOT IN ('given_up', 'payment_declined')
            OR (reason = 'payment_declined' AND state <> 'cancelled'))""",
    ),
    sql(
        "orders.customer",
        "an order, its services and what is asked for them are one customer's",
        """
        SELECT 'service', s.id FROM services AS s LEFT JOIN orders AS o ON o.id = s.order_id
        WHERE s.id BETWEEN :low AND :high AND s.order_id IS NOT NULL
          AND (s.customer_id, s.subsidiary) IS DISTINCT FROM (o.customer_id, o.subsidiary)
        UNION ALL
        SELECT 'service', s.id FROM services AS s LEFT JOIN customers AS c ON c.id = s.customer_id
        WHERE s.id BETWEEN :low AND :high AND s.subsidiary IS DISTINCT FROM c.subsidiary
          AND (s.order_id IS NULL OR c.id IS NULL)
        UNION ALL
        SELECT 'payment request', r.id
        FROM payment_requests AS r LEFT JOIN orders AS o ON o.id = r.order_id
        WHERE r.id BETWEEN :low AND :high AND r.order_id IS NOT NULL
          AND (r.customer_id, r.subsidiary, r.country, r.vat_number)
            IS DISTINCT FROM (o.customer_id, o.subsidiary, o.country, o.vat_number)
        UNION ALL
        SELECT DISTINCT 'payment request', r.id FROM payment_requests AS r
        JOIN request_lines AS l ON l.request_id = r.id
        LEFT JOIN services AS s ON s.id = l.service_id
        WHERE r.id BETWEEN :low AND :high
          AND (s.customer_id, s.subsidiary) IS DISTINCT FROM (r.customer_id, r.subsidiary)""",
    ),
    sql(
        "orders.price",
        "an order is asked for at the prices that it was accepted at, each unit once",
        """
        SELECT DISTINCT 'payment request', r.id FROM payment_requests AS r
        JOIN request_lines AS q ON q.request_id = r.id
        LEFT JOIN services AS s ON s.id = q.service_id
        LEFT JOIN order_lines AS l ON l.order_id = r.order_id AND l.number = s.line
        WHERE r.id BETWEEN :low AND :high AND r.order_id IS NOT NULL AND (
            s.order_id IS DISTINCT FROM r.order_id
            OR q.period_number NOT IN (0, 1)
            -- The release before kept no price with the line.
            OR l.currency <> r.currency
            OR q.net <> CASE q.period_number WHEN 0 THEN l.setup ELSE l.renewal END
            OR q.period_number = 0 AND q.net = 0)
        UNION ALL
        SELECT 'payment request', r.id FROM payment_requests AS r
        JOIN (SELECT l.order_id,
                sum(l.quantity * (1 + CAST(coalesce(l.setup, 0) > 0 AS integer))) AS wanted,
                bool_or(l.currency IS NULL) AS is_old
            FROM order_lines AS l GROUP BY l.order_id) AS o ON o.order_id = r.order_id
        JOIN (SELECT request_id, count(*) AS lines FROM request_lines
            WHERE request_id BETWEEN :low AND :high GROUP BY request_id) AS q
            ON q.request_id = r.id
        WHERE r.id BETWEEN :low AND :high AND NOT o.is_old AND q.lines <> o.wanted""",
    ),
)
