"""Payment requests: their lines, sums and tax, derived anew from the rules."""

from collections.abc import Iterator

from sqlalchemy import text

from monitoring.audit.checks import Books, Check, Offence, sql
from monitoring.audit.taxes import Taxes

# Of requests that were taxed alike: how, on which days, and all their ids. All lines of one are of
# one rate, by a check of its own: the first stands for all. A charge that is in doubt keeps the tax
# of the day on which it began, for three months at most.
_TAXED = text("""
    SELECT subsidiary, country, vat_number, tax_rate, tax_mention,
        CASE WHEN is_current THEN greatest(made_on, last_day - 92) ELSE made_on END AS first_day,
        last_day, array_agg(id) AS ids
    FROM (
        SELECT r.id, r.subsidiary, r.country, r.vat_number, q.tax_rate, r.tax_mention,
            CAST(least(r.created_at, i.issued_on, CAST(:now AS timestamptz)) - interval '1 day'
                AS date) AS made_on,
            r.state IN ('open', 'paid') AS is_current,
            CAST(coalesce(i.issued_on, least(CAST(:now AS timestamptz) + interval '1 day',
                r.closed_at + interval '400 days'),
                CAST(:now AS timestamptz) + interval '1 day') AS date) AS last_day
        FROM payment_requests AS r
        JOIN request_lines AS q ON q.request_id = r.id AND q.number = 1
        LEFT JOIN invoices AS i ON i.request_id = r.id
        WHERE r.id BETWEEN :low AND :high
    ) AS r
    GROUP BY subsidiary, country, vat_number, tax_rate, tax_mention, first_day, last_day
""")


def _rates(books: Books) -> Iterator[Offence]:
    """Requests whose rate or mention was the right one on no day from its making to its end."""
    taxes = Taxes.of(books)
    for row in books.rows(_TAXED):
        treatments = taxes.between(
            row.subsidiary, row.country, row.vat_number, row.first_day, row.last_day
        )
        said = (row.tax_rate, row.tax_mention)
        if not any((treatment.rate, treatment.mention) == said for treatment in treatments):
            for request in row.ids:
                yield Offence("payment request", str(request))


CHECKS = (
    sql(
        "requests.sum",
        "a payment request is the sum of its lines, which are numbered from 1 on",
        """
        SELECT 'payment request', r.id FROM payment_requests AS r
        LEFT JOIN (
            SELECT request_id, sum(net) AS net, sum(tax) AS tax, count(*) AS lines,
                min(number) AS first, max(number) AS last, min(net) AS least
            FROM request_lines WHERE request_id BETWEEN :low AND :high
            GROUP BY request_id) AS l ON l.request_id = r.id
        WHERE r.id BETWEEN :low AND :high
          AND ((r.net, r.tax, r.total) IS DISTINCT FROM (l.net, l.tax, l.net + l.tax)
            OR (l.first, l.last) IS DISTINCT FROM (1, l.lines) OR l.least < 0)""",
    ),
    # What each line adds to the tax of those before it; an earlier release rounded each line.
    sql(
        "requests.tax",
        "the tax of a payment request is that of one rate on its net, rounded once",
        """
        SELECT DISTINCT 'payment request', request_id FROM (
            SELECT request_id, net, tax, tax_rate,
                sum(net) OVER w AS upto, min(tax_rate) OVER w AS least, max(tax_rate) OVER w AS most
            FROM request_lines WHERE request_id BETWEEN :low AND :high
            WINDOW w AS (PARTITION BY request_id ORDER BY number)) AS l
        WHERE least <> most
           OR (tax <> round(upto * tax_rate / 100) - round((upto - net) * tax_rate / 100)
             AND tax <> round(net * tax_rate / 100))""",
    ),
    Check(
        "requests.rate",
        "the tax rate of a payment request, and what it says of it, are those of the tax table",
        _rates,
    ),
    sql(
        "requests.words",
        "a line of a payment request says what it is for: a setup, or its service's period",
        """
        SELECT DISTINCT 'payment request', l.request_id
        FROM request_lines AS l JOIN services AS s ON s.id = l.service_id
        WHERE l.request_id BETWEEN :low AND :high AND NOT (
            l.period_number >= 0 AND l.description LIKE CASE l.period_number
                WHEN 0 THEN '%, setup' ELSE '%, P' || s.period_months || 'M' END)""",
    ),
    sql(
        "requests.state",
        "a payment request is closed unless it is open; its lines are free once it was taken apart",
        """
        SELECT DISTINCT 'payment request', r.id FROM payment_requests AS r
        LEFT JOIN request_lines AS l ON l.request_id = r.id
        WHERE r.id BETWEEN :low AND :high AND (
            (r.state = 'open') <> (r.closed_at IS NULL)
            OR r.closed_at < r.created_at
            OR (r.state IN ('voided', 'split')) <> (l.released_at IS NOT NULL)
            OR l.refused_at IS NOT NULL AND r.state <> 'paid'
            -- One transaction does both.
            OR coalesce(l.released_at, l.refused_at) <> r.closed_at
            OR r.state = 'split' AND r.order_id IS NOT NULL)""",
    ),
    sql(
        "requests.currency",
        "a payment request is in a currency that its subsidiary has or had",
        """
        SELECT 'payment request', r.id FROM payment_requests AS r
        LEFT JOIN subsidiaries AS u ON u.code = r.subsidiary
        WHERE r.id BETWEEN :low AND :high
          AND r.currency IS DISTINCT FROM u.definition->>'currency'
          AND NOT EXISTS (SELECT FROM subsidiary_changes AS c
            WHERE c.subsidiary = r.subsidiary AND c.former->>'currency' = r.currency)""",
    ),
)
