"""Numbers of invoices and credit notes: 1..n per series, without a gap, dates never back.

The counters are locked in order, as the last thing before the documents are written, by
whoever numbers a batch; they are held until that transaction ends.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from sqlalchemy import Connection, text

from schemas.tables.bulk import rows_as_json

_OPEN = text("""
    INSERT INTO invoice_series (code, last_number, last_date)
    SELECT code, 0, day FROM json_to_recordset(CAST(:rows AS json)) AS r(code text, day date)
    ORDER BY code
    ON CONFLICT DO NOTHING
""")

_LOCK = text("SELECT code FROM invoice_series WHERE code = ANY(:codes) ORDER BY code FOR UPDATE")

_TAKE = text("""
    UPDATE invoice_series AS s
    SET last_number = s.last_number + r.taken, last_date = greatest(s.last_date, r.day)
    FROM json_to_recordset(CAST(:rows AS json)) AS r(code text, day date, taken integer)
    WHERE s.code = r.code
    RETURNING s.code, s.last_number - r.taken, s.last_date
""")


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
    rows = [
        {"code": code, "day": latest[code].isoformat(), "taken": counts[code]}
        for code in sorted(counts)
    ]
    parameters = {"rows": rows_as_json(rows)}
    tx.execute(_LOCK, {"codes": sorted(counts)})
    taken = list(tx.execute(_TAKE, parameters))
    if len(taken) < len(counts):
        # The first documents of a series. Undone with the transaction, like every number.
        tx.execute(_OPEN, parameters)
        tx.execute(_LOCK, {"codes": sorted(counts)})
        known = {code for code, _, _ in taken}
        missing = [row for row in rows if row["code"] not in known]
        taken += tx.execute(_TAKE, {"rows": rows_as_json(missing)})
    last = {code: (number, day) for code, number, day in taken}
    numbers = []
    for code, _ in wanted:
        number, day = last[code]
        last[code] = (number + 1, day)
        numbers.append(Number(code, number + 1, day))
    return numbers
