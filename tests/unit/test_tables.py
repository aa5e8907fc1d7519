"""Tables of the command line: one line per row for programs, folded for people."""

import json
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorenew.cli.common import show, table

NOON = datetime(2026, 3, 2, 12, 0, 0, 345_678, UTC)
SUBJECT = uuid.UUID("6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42")
LONG = "the infrastructure says that there is no room left in the datacenter that was chosen " * 3

FAILED = ("queue", "task", "subject", "order", "plan", "reason", "error", "attempts", "since")
TIMELINE = ("at", "after_s", "subject", "event", "waited_s", "attempt", "detail")


def failed(**changes: Any) -> list[Any]:
    row = {
        "queue": "dedicated",
        "task": "converge",
        "subject": SUBJECT,
        "order": "shop-2024-000123",
        "plan": "21rise011-sgp",
        "reason": "gateway_unavailable",
        "error": LONG,
        "attempts": 8,
        "since": NOON.replace(microsecond=0),
    }
    return list((row | changes).values())


def event(seconds: float, name: str, detail: str) -> list[Any]:
    at = NOON + timedelta(seconds=seconds)
    return [at, f"{seconds:.3f}", "service 1.1", name, "0.012", 1, detail]


EVENTS = [
    event(0, "order.accepted", "upstream file"),
    event(1, "order.paid", "amount 45.44 EUR, charge 1, invoice FR-2026-000001"),
    event(2, "service.delivered", f"resource {SUBJECT}, paid_until 2026-04-02"),
]


def test_row_for_a_program_is_one_line_however_long() -> None:
    rows = [failed(), failed(error="two\nlines", order=None)]
    title, header, first, second = table("failed tasks", FAILED, rows, None)
    assert title == "failed tasks"
    assert header.split() == list(FAILED)
    for whole in (str(SUBJECT), "gateway_unavailable", LONG.strip(), "2026-03-02T12:00:00Z"):
        assert whole in first
    assert "two lines" in second
    # And the columns stand below each other.
    assert first.index(str(SUBJECT)) == second.index(str(SUBJECT)) == header.index("subject")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_uuids_times_and_reasons_are_never_broken(width: int) -> None:
    lines = table("failed tasks", FAILED, [failed(), failed(order="k" * 100)], width)
    for whole in (str(SUBJECT), "12:00:00", "gateway_unavailable"):
        assert sum(whole in line for line in lines) == 2
    lines = table("timeline", TIMELINE, EVENTS, width)
    assert sum(str(SUBJECT) in line for line in lines) == 1
    for seconds in (0, 1, 2):
        assert sum(f"12:00:0{seconds}.345" in line for line in lines) == 1


def test_on_a_terminal_only_long_texts_are_folded() -> None:
    rows = EVENTS[:2]
    lines = table("timeline", TIMELINE, rows, 80)
    assert all(len(line) <= 80 for line in lines)
    (paid,) = (line for line in lines if "order.paid" in line)
    assert "12:00:01.345" in paid
    assert "service 1.1" in paid
    # Between words, which stay whole.
    at = next(line for line in lines if "upstream" in line).index("upstream")
    folded = " ".join(line[at:].strip() for line in lines[lines.index(paid) :])
    assert folded == "amount 45.44 EUR, charge 1, invoice FR-2026-000001"


def test_last_columns_stand_below_their_row_where_not_even_words_fit() -> None:
    _, header, *lines = table("failed tasks", FAILED, [failed(), failed(plan=None)], 80)
    assert header.split() == ["queue", "task", "subject", "order"]
    assert all(len(line) <= 80 for line in (header, *lines))
    first, second = (n for n, line in enumerate(lines) if not line.startswith("  "))
    assert lines[first].split() == ["dedicated", "converge", str(SUBJECT), "shop-2024-000123"]
    below = lines[first + 1 : second]
    assert below[0].startswith("  plan: 21rise011-sgp; reason: gateway_unavailable; error: the")
    assert below[-1].endswith("attempts: 8; since: 12:00:00")
    assert not any("plan:" in line for line in lines[second:])  # it has none


def test_columns_without_a_value_are_left_out_where_not_all_fit() -> None:
    rows = [failed(order=None, plan="", error=None)]
    _, header, row, below = table("failed tasks", FAILED, rows, 80)
    assert header.split() == ["queue", "task", "subject", "reason"]
    assert row.split()[-1] == "gateway_unavailable"
    assert below == "  attempts: 8; since: 12:00:00"


def test_each_field_has_a_line_where_not_even_two_columns_fit() -> None:
    lines = table("services", ("service", "resource"), [[SUBJECT, SUBJECT]], 60)
    assert lines == ["services", "", f"service   {SUBJECT}", f"resource  {SUBJECT}"]


def test_day_that_all_times_share_is_shown_once() -> None:
    title, *lines = table("timeline", TIMELINE, EVENTS, 200)
    assert title == "timeline (2026-03-02 UTC)"
    assert not any("2026-03-02" in line for line in lines)


def test_times_of_several_days_keep_their_dates() -> None:
    rows = [[NOON.replace(microsecond=0)], [NOON.replace(day=3, microsecond=0)]]
    title, _, *lines = table("times", ("at",), rows, 80)
    assert title == "times"
    assert lines == ["2026-03-02T12:00:00Z", "2026-03-03T12:00:00Z"]


def test_shown_text_cannot_move_the_cursor_or_act_as_markup() -> None:
    _, _, line = table("x", ("reason",), [["a\x1b[2J\rb [red]c[/red] [/x]"]], 80)
    assert line == "a [2J b [red]c[/red] [/x]"


@given(
    st.lists(st.lists(st.text(max_size=60), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(20, 120),
)
def test_table_shows_every_character_whatever_its_width(rows: list[list[str]], width: int) -> None:
    lines = table("t", ("one", "two", "three"), rows, width)
    written = Counter(c for row in rows for text in row for c in text if c.isprintable())
    shown = Counter("".join(lines))
    assert all(shown[c] >= count for c, count in written.items() if c != " ")


def test_table_without_rows_says_none(capsys: pytest.CaptureFixture[str]) -> None:
    show("failed tasks", FAILED, [], json_lines=False)
    assert capsys.readouterr().out == "failed tasks: none\n"


def test_json_is_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show("", ("subject", "since", "error"), [[SUBJECT, NOON, None]], json_lines=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "subject": str(SUBJECT),
        "since": "2026-03-02T12:00:00.345Z",
        "error": None,
    }
    assert datetime.fromisoformat(json.loads(line)["since"]) == NOON.replace(microsecond=345_000)
