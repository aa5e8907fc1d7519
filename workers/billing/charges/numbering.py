"""Numbers of invoices and credit notes: 1..n per series, without a gap, dates never back.

The counters are locked in the order of their codes, as the last thing before the documents are
written, by whoever numbers a batch; they are held until that transaction ends.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from schemas.tables.bulk import Bulk


@dataclass(frozen=True, slots=True)
class TakenRow:
    """How many numbers of a series are taken, and the latest day they are taken for."""

    code: str
    day: date
    taken: int


# Locks nothing if one of them is not there yet.
_LOCK_ALL = text("""
    SELECT code FROM invoice_series
    WHERE code = ANY(:codes)
      AND (SELECT count(*) FROM invoice_series WHERE code = ANY(:codes)) = cardinality(:codes)
    ORDER BY code FOR UPDATE
""")
_OPEN = text("""
    INSERT INTO invoice_series (code, last_number, last_date, last_hash)
    VALUES (:code, 0, :day, chain_start(:code))
    ON CONFLICT DO NOTHING
""")
_LOCK = text("SELECT FROM invoice_series WHERE code = :code FOR UPDATE")

_TAKE = Bulk(
    TakenRow,
    """
    UPDATE invoice_series AS s
    SET last_number = s.last_number + r.taken, last_date = greatest(s.last_date, r.day)
    FROM json_to_recordset(CAST(:rows AS json)) AS r(code text, day date, taken integer)
    WHERE s.code = r.code
    RETURNING s.code, s.last_number - r.taken, s.last_date
    """,
)


class Number(NamedTuple):
    series: str
    number: int
    issued_on: date

    def __str__(self) -> str:
        return f"{self.series}-{self.number:07d}"


def series_code(subsidiary: str, day: date, *, credit: bool = False) -> str:
    """One series per subsidiary and year; credit notes have their own."""
    return f"{subsidiary}-{day.year}" + ("-C" if credit else "")


def take_numbers(tx: Connection, wanted: Sequence[tuple[str, date]]) -> list[Number]:
    """The next number of each wanted series, in the order asked for.

    Args:
        wanted: (series, the subsidiary's local date) of each document. The date given is the
            later of this and the last date of the series.
    """
    counts = Counter(code for code, _ in wanted)
    latest = {code: max(day for c, day in wanted if c == code) for code in counts}
    rows = [TakenRow(code, latest[code], counts[code]) for code in sorted(counts)]
    _lock(tx, rows)
    taken: list[Any] = list(_TAKE(tx, rows))
    last = {code: (number, day) for code, number, day in taken}
    numbers = []
    for code, _ in wanted:
        number, day = last[code]
        last[code] = (number + 1, day)
        numbers.append(Number(code, number + 1, day))
    return numbers


def _lock(tx: Connection, rows: Sequence[TakenRow]) -> None:
    """Lock every counter of these rows, which are sorted by code.

    The first documents of a series open it; that is undone with the transaction, like every number.
    Whoever opens one holds it, so opening and locking share one order: else two who open different
    series of the same set wait for each other.
    """
    if tx.execute(_LOCK_ALL, {"codes": [row.code for row in rows]}).first() is not None:
        return
    for row in rows:
        tx.execute(_OPEN, {"code": row.code, "day": row.day})
        tx.execute(_LOCK, {"code": row.code})
