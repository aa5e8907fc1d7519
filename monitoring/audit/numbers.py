"""Numbers of invoices and credit notes: without gap, in order of their dates, in their series."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import TextClause, text

from monitoring.audit.checks import Books, Check, Offence, Since, sql

_GAPS = text("""
    SELECT 'number', series || '-' || lpad(CAST(number AS text), 7, '0') FROM (
        SELECT series, number, issued_on,
            row_number() OVER w AS expected, lag(issued_on) OVER w AS before
        FROM (SELECT series, number, issued_on FROM invoices
              UNION ALL SELECT series, number, issued_on FROM credit_notes) AS d
        WINDOW w AS (PARTITION BY series ORDER BY number)) AS n
    WHERE number <> expected OR issued_on < before
""")
_COUNTERS = text("""
    SELECT 'series', coalesce(s.code, d.series) FROM invoice_series AS s
    FULL JOIN (
        SELECT series, count(*) AS count, max(number) AS last, max(issued_on) AS day
        FROM (SELECT series, number, issued_on FROM invoices
              UNION ALL SELECT series, number, issued_on FROM credit_notes) AS d
        GROUP BY series) AS d ON d.series = s.code
    WHERE (s.last_number, s.last_number, s.last_date)
        IS DISTINCT FROM (d.count, d.last, d.day)
""")
_SERIES = text("SELECT code FROM invoice_series ORDER BY code")
# Of one series, from the last number that an earlier run has seen, and that one again. Of all
# series at once the planner would read all.
_LATER_GAPS = text("""
    SELECT 'number', :series || '-' || lpad(CAST(number AS text), 7, '0') FROM (
        SELECT number, issued_on, lag(issued_on) OVER w AS before,
            greatest(CAST(:number AS bigint), 1) + row_number() OVER w - 1 AS expected
        FROM (SELECT number, issued_on FROM invoices WHERE series = :series AND number >= :number
              UNION ALL SELECT number, issued_on FROM credit_notes
              WHERE series = :series AND number >= :number) AS d
        WINDOW w AS (ORDER BY number)) AS n
    WHERE number <> expected OR issued_on < before
""")
_LATER_COUNTERS = text("""
    SELECT 'series', code FROM (VALUES (CAST(:series AS text))) AS v(code)
    WHERE (SELECT (last_number, last_date) FROM invoice_series WHERE code = :series)
        IS DISTINCT FROM (
            SELECT (max(number), max(issued_on))
            FROM (SELECT number, issued_on FROM invoices
                  WHERE series = :series AND number >= :number
                  UNION ALL SELECT number, issued_on FROM credit_notes
                  WHERE series = :series AND number >= :number) AS d)
""")


def _gaps(books: Books) -> Iterator[Offence]:
    for kind, number in _found(books, _GAPS, _LATER_GAPS):
        yield Offence(kind, number)


def _counters(books: Books) -> Iterator[Offence]:
    for kind, series in _found(books, _COUNTERS, _LATER_COUNTERS):
        yield Offence(kind, series)


def _found(books: Books, every: TextClause, later: TextClause) -> Iterator[Any]:
    if books.mark is None:
        yield from books.rows(every)
        return
    known = {row.code: 0 for row in books.rows(_SERIES)}
    known |= {head.chain: head.number for head in books.mark.documents}
    for series, number in known.items():
        yield from books.rows(later, series=series, number=number)


CHECKS = (
    Check(
        "numbers.gapless",
        "numbers of a series are 1..n, dates never go back",
        _gaps,
        whole=True,
        since=Since.ONCE,
    ),
    Check(
        "numbers.counter",
        "a series' counter is its last number, of its last date",
        _counters,
        whole=True,
        since=Since.ONCE,
    ),
    sql(
        "numbers.series",
        "a document is in the series of its subsidiary, its year and its kind",
        """
        SELECT 'invoice', id FROM invoices
        WHERE id BETWEEN :low AND :high
          AND series <> subsidiary || '-' || CAST(extract(year FROM issued_on) AS integer)
        UNION ALL
        SELECT 'credit note', n.id FROM credit_notes AS n
        LEFT JOIN invoices AS i ON i.id = n.invoice_id
        WHERE n.id BETWEEN :low AND :high AND n.series IS DISTINCT FROM
            i.subsidiary || '-' || CAST(extract(year FROM n.issued_on) AS integer) || '-C'""",
    ),
    # A day is local to the subsidiary; what is recorded beside it is the database's time, which
    # the business' may be ahead of, or behind, on a virtual clock.
    sql(
        "numbers.dates",
        "a document is dated between the payment that it is for and today",
        """
        SELECT 'invoice', i.id FROM invoices AS i
        LEFT JOIN payment_requests AS r ON r.id = i.request_id
        WHERE i.id BETWEEN :low AND :high
          AND (i.issued_on > CAST(CAST(:now AS timestamptz) + interval '1 day' AS date)
            OR (i.issued_on NOT BETWEEN CAST(r.closed_at AS date) - 1
                AND CAST(r.closed_at AS date) + 1
              AND NOT EXISTS (SELECT FROM virtual_clock)))
        UNION ALL
        SELECT 'credit note', n.id FROM credit_notes AS n
        LEFT JOIN invoices AS i ON i.id = n.invoice_id
        WHERE n.id BETWEEN :low AND :high
          AND (n.issued_on < i.issued_on
            OR n.issued_on > CAST(CAST(:now AS timestamptz) + interval '1 day' AS date))""",
    ),
)
