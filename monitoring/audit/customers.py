"""Customers, what they agreed to, and the catalogue that they buy from."""

from monitoring.audit.checks import sql

CHECKS = (
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
    ),
)
