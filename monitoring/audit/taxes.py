"""Which tax was right for whom, on which day: by the table, and by what subsidiaries were then."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

from sqlalchemy import text

from monitoring.audit.checks import Books
from schemas.catalogue import Subsidiary
from schemas.errors import DataError
from schemas.rules import tax
from schemas.rules.tax import Treatment

_CHANGES = text("""
    SELECT subsidiary, since, former FROM subsidiary_changes
    WHERE applied_at IS NOT NULL ORDER BY subsidiary, since DESC, id DESC
""")
# A change is put in force on its day or later, when the fleet comes to it.
_LATE = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Taxes:
    """
    Attributes:
        subsidiaries: each as it is, and as it was: (how, since when, until when), newest first.
    """

    subsidiaries: dict[str, list[tuple[Subsidiary, date, date]]]

    @classmethod
    def of(cls, books: Books) -> "Taxes":
        found = {
            code: [(subsidiary, date.min, date.max)]
            for code, subsidiary in books.catalogue.subsidiaries.items()
        }
        for change in books.rows(_CHANGES):
            newest, _, until = found[change.subsidiary][-1]
            found[change.subsidiary][-1] = newest, change.since, until
            before = replace(newest, **(change.former or {}))
            found[change.subsidiary].append((before, date.min, change.since + _LATE))
        return cls(found)

    def between(
        self, subsidiary: str, country: str, vat_number: str | None, first: date, last: date
    ) -> Iterator[Treatment]:
        """What was right on some day of these; nothing for what was never sold."""
        for how, since, until in self.subsidiaries.get(subsidiary, ()):
            day, end = max(first, since), min(last, until)
            while day <= end:
                try:
                    treatment = tax.determine(
                        subsidiary=how, customer_country=country, vat_number=vat_number, on=day
                    )
                except DataError:
                    break
                yield treatment
                if treatment.until is None:
                    break
                day = treatment.until
