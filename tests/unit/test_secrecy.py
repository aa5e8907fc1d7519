"""Which secrets are refused."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.secrecy import placeholder, weakness


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "blank"),
        (" " * 16, "blank"),
        ("\t\n" * 8, "blank"),
        ("development-only", "everybody knows"),
        ("fifteen letters", "at least 16 characters"),
        ("s" * 32, "repeats"),
        ("ab" * 16, "repeats"),
        ("1212121212121213", "repeats"),
        ("hunter2hunter2hunter2", "repeats"),
        (" what signs the links", "begins or ends with a blank"),
        ("what signs the links\n", "begins or ends with a blank"),
    ],
)
def test_secret_that_can_be_guessed_is_weak(secret: str, why: str) -> None:
    found = weakness(secret)
    assert found is not None
    assert why in found


def test_random_secret_is_not_weak() -> None:
    for made in (secrets.token_hex(24), secrets.token_hex(8) + "ghij", secrets.token_urlsafe(24)):
        assert weakness(made) is None


@given(st.text(min_size=1, max_size=12), st.integers(2, 20))
def test_secret_that_repeats_a_part_is_weak(part: str, times: int) -> None:
    assert weakness(part * times) is not None


def test_token_that_others_chose_may_be_short_but_not_blank_or_a_default() -> None:
    assert placeholder("hunter2") is None
    assert placeholder("  ") is not None
    assert placeholder("development-only") is not None
