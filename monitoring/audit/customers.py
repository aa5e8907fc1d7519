"""Customers, what they agreed to, and the catalogue that they buy from."""

from collections.abc import Iterator

from sqlalchemy import text

from monitoring.audit.checks import Books, Check, Offence, Since, sql
from schemas.values import derived_id

# The history of a customer is kept under an id that is derived from theirs, by Python. Cut into
# pieces by one that the database derives.
_MOVED = text("""
    SELECT 'customer' AS kind, c.id, c.id AS customer_id FROM customers AS c
    WHERE CAST(md5(c.id) AS uuid) BETWEEN :low AND :high
      AND EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id)
      AND NOT EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id
        AND (o.country, o.vat_number) IS NOT DISTINCT FROM (c.country, c.vat_number))
    UNION ALL
    SELECT 'payment request', CAST(r.id AS text), r.customer_id FROM payment_requests AS r
    LEFT JOIN customers AS c ON c.id = r.customer_id
    WHERE r.order_id IS NULL AND r.id BETWEEN :low AND :high
      AND (r.country, r.vat_number) IS DISTINCT FROM (c.country, c.vat_number)
      AND NOT EXISTS (SELECT FROM orders AS o WHERE o.customer_id = r.customer_id
        AND (o.country, o.vat_number) IS NOT DISTINCT FROM (r.country, r.vat_number))
""")
_TOLD = text("""
    SELECT subject FROM events WHERE subject = ANY(:subjects) AND name = 'customer.changed'
      AND (detail->'fields' ? 'country' OR detail->'fields' ? 'vat_number')
""")


def _moved(books: Books) -> Iterator[Offence]:
    """Who is taxed otherwise than when they ordered, and never said so."""
    found = list(books.rows(_MOVED))
    subjects = sorted({derived_id("customer", row.customer_id) for row in found})
    told = {row.subject for row in books.rows(_TOLD, subjects=subjects)} if found else set()
    for row in found:
        if derived_id("customer", row.customer_id) not in told:
            yield Offence(row.kind, row.id)


CHECKS = (
    Check(
        "customers.home",
        "a customer, and what is asked of them, is of the country and VAT number that they named",
        _moved,
        since=Since.NEVER,
    ),
    sql(
        "customers.agreed",
        "what a customer agreed to is a version that its contract has or had",
        """
        SELECT 'customer', a.customer_id FROM agreements AS a
        LEFT JOIN contracts AS c ON c.code = a.contract
        WHERE c.code IS NULL OR a.version NOT BETWEEN 1 AND c.version
           OR NOT EXISTS (SELECT FROM customers AS u WHERE u.id = a.customer_id)""",
    ),
    sql(
        "customers.facts",
        "a customer buys from a subsidiary that there is, and can be written to",
        """
        SELECT 'customer', c.id FROM customers AS c
        WHERE NOT EXISTS (SELECT FROM subsidiaries AS u WHERE u.code = c.subsidiary)
           OR c.country !~ '^[A-Z]{2}$' OR c.email NOT LIKE '%_@_%' OR c.language = ''""",
    ),
    sql(
        "customers.orders",
        "what there is of orders, services and requests is of customers that there are",
        """
        SELECT 'order', o.id FROM orders AS o
        WHERE o.id BETWEEN :low AND :high AND o.customer_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM customers AS c WHERE c.id = o.customer_id)
        UNION ALL
        SELECT 'payment request', r.id FROM payment_requests AS r
        WHERE r.id BETWEEN :low AND :high
          AND NOT EXISTS (SELECT FROM customers AS c WHERE c.id = r.customer_id)
        UNION ALL
        SELECT 'payment method', m.id FROM payment_methods AS m
        WHERE m.id BETWEEN :low AND :high
          AND NOT EXISTS (SELECT FROM customers AS c WHERE c.id = m.customer_id)""",
    ),
    sql(
        "catalogue.currency",
        "what a plan costs in a subsidiary is in that one's currency",
        """
        SELECT 'plan', p.plan || ' in ' || p.subsidiary FROM prices AS p
        LEFT JOIN subsidiaries AS u ON u.code = p.subsidiary
        WHERE p.currency IS DISTINCT FROM u.definition->>'currency' AND p.on_sale""",
        since=Since.ONCE,
    ),
    # Both are written in one transaction.
    sql(
        "catalogue.changes",
        "a subsidiary is as the last change that was applied to it has made it",
        """
        SELECT 'subsidiary', u.code FROM subsidiaries AS u
        LEFT JOIN (SELECT subsidiary, max(applied_at) AS applied_at FROM subsidiary_changes
            GROUP BY subsidiary) AS c ON c.subsidiary = u.code
        WHERE (u.changed_at IS NULL) <> (c.applied_at IS NULL)
           OR u.changed_at NOT BETWEEN c.applied_at - interval '10 minutes'
                AND c.applied_at + interval '10 minutes'
        UNION ALL
        SELECT 'change of', c.subsidiary FROM subsidiary_changes AS c
        LEFT JOIN subsidiaries AS u ON u.code = c.subsidiary
        WHERE (c.applied_at IS NULL) <> (c.former IS NULL) OR c.definition = '{}'
           OR c.applied_at < c.planned_at
           OR (NOT u.definition @> c.definition AND c.applied_at IS NOT NULL
             AND NOT EXISTS (SELECT FROM subsidiary_changes AS d
                WHERE d.subsidiary = c.subsidiary AND d.applied_at > c.applied_at))""",
        since=Since.ONCE,
    ),
    sql(
        "catalogue.version",
        "there is one catalogue, with a version",
        """
        SELECT 'plans', CAST(count(*) AS text) FROM plans
        HAVING count(*) > 0 AND (SELECT count(*) FROM catalogue_version) <> 1""",
        since=Since.ONCE,
    ),
    sql(
        "catalogue.references",
        "a plan's contract and policy are there, and a subsidiary's definition is its own",
        """
        SELECT 'plan', p.code FROM plans AS p
        LEFT JOIN contracts AS c ON c.code = p.contract
        LEFT JOIN policies AS y ON y.code = p.policy
        WHERE (p.contract IS NOT NULL AND c.code IS NULL)
           OR (p.policy IS NOT NULL AND y.code IS NULL)
        UNION ALL
        SELECT 'subsidiary', code FROM subsidiaries WHERE definition->>'code' <> code
        UNION ALL
        SELECT 'contract', code FROM contracts
        WHERE (definition->>'code', CAST(definition->>'version' AS integer)) <> (code, version)
        UNION ALL
        SELECT 'policy', code FROM policies WHERE definition->>'code' <> code""",
        since=Since.ONCE,
    ),
)
