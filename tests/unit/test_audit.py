"""The audit's pieces cover all ids once; its taxes are those of what a subsidiary was on a day."""

import uuid
from dataclasses import replace
from datetime import date
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from monitoring.audit.checks import SHOWN, WHOLE, Finding, Offence, pieces
from monitoring.audit.taxes import Taxes
from schemas.catalogue import Subsidiary

IE = Subsidiary("IE", "Hosting Ltd", "IE", "EUR", "Europe/Dublin", "en")
MOVED_ON = date(2026, 7, 1)


@given(st.integers(1, 200), st.uuids())
def test_every_id_is_in_exactly_one_piece(count: int, subject: uuid.UUID) -> None:
    cut = pieces(count)

    assert len(cut) == count
    assert (cut[0].low, cut[-1].high) == WHOLE
    assert sum(piece.low <= subject <= piece.high for piece in cut) == 1
    assert [piece.is_first for piece in cut] == [True] + [False] * (count - 1)


def test_a_finding_counts_all_and_keeps_the_first() -> None:
    finding = Finding("what must be true")

    finding.add(Offence("order", str(number)) for number in range(100))

    assert finding.broken == 100
    assert finding.ids == [str(number) for number in range(SHOWN)]


def rates(taxes: Taxes, country: str, first: date, last: date) -> list[tuple[Decimal, str]]:
    found = taxes.between("IE", country, None, first, last)
    return [(treatment.rate, treatment.mention) for treatment in found]


def test_the_rate_of_each_day_on_which_it_could_be_paid_is_right() -> None:
    taxes = Taxes({"IE": [(IE, date.min, date.max)]})

    # Ireland's standard rate was 21 % for half a year from September 2020 on.
    assert rates(taxes, "IE", date(2020, 8, 30), date(2020, 8, 31)) == [(Decimal(23), "VAT IE")]
    found = rates(taxes, "IE", date(2020, 8, 31), date(2020, 9, 2))
    assert {rate for rate, _ in found} == {Decimal(23), Decimal(21)}


def test_a_subsidiary_that_moved_taxes_by_its_former_country_before() -> None:
    moved = replace(IE, country="FR")
    taxes = Taxes({"IE": [(moved, MOVED_ON, date.max), (IE, date.min, date(2026, 8, 1))]})

    before = rates(taxes, "IE", date(2026, 5, 1), date(2026, 5, 2))
    after = rates(taxes, "FR", date(2026, 9, 1), date(2026, 9, 2))

    assert [rate for rate, _ in before] == [Decimal(23)]
    assert [rate for rate, _ in after] == [Decimal(20)]


def test_what_is_never_sold_is_right_on_no_day() -> None:
    taxes = Taxes({"IE": [(IE, date.min, date.max)]})

    assert rates(taxes, "US", date(2026, 1, 1), date(2026, 2, 1)) == []
    assert list(taxes.between("XX", "IE", None, date(2026, 1, 1), date(2026, 2, 1))) == []
