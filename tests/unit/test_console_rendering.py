"""What the console's pages show of values that others chose."""

import pytest

from autorenew.console.rendering import detail


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("vps", "vps"),
        (["r-1", "r-2"], "r-1, r-2"),
        ([], "[]"),
        ([1], "[1]"),
        ({"a": 1}, '{"a": 1}'),
    ],
)
def test_lists_of_texts_are_shown_as_texts_and_not_as_json(value: object, shown: str) -> None:
    assert detail(value) == shown
