"""Lists with one line an item."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from autorenew.cli.lines import WIDTH, Column, age, lines

COLUMNS = (Column("ID", 8), Column("N", 5, right=True), Column("SAYS"))
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@given(st.lists(st.tuples(st.text(), st.integers(), st.none() | st.text())))
def test_every_item_is_one_line_within_the_width(rows: list[tuple[object, ...]]) -> None:
    shown = list(lines(COLUMNS, rows))

    assert len(shown) == len(rows) + 1
    assert all(len(line) <= WIDTH and "\n" not in line for line in shown)


def test_numbers_end_below_each_other_and_long_texts_are_cut_off() -> None:
    first, second, third = lines(COLUMNS, [("a", 1, "x" * 100), ("b" * 9, 12345, None)])

    assert first == "ID           N SAYS"
    assert second == "a            1 " + "x" * (WIDTH - 16) + "…"
    assert third == "bbbbbbb… 12345"


def test_ages_are_short() -> None:
    ages = [timedelta(seconds=s) for s in (-5, 59, 150, 3 * 3600, 30 * 86400)]
    assert [age(NOON - a, NOON) for a in ages] == ["0s", "59s", "2m", "3h", "30d"]
    assert age(None, NOON) == ""
