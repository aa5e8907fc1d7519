"""Errors have stable codes, and any error can be shown as one line."""

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from schemas import errors
from schemas.errors import AutorenewError, CatalogueError, DataError, first_line

ALL = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, AutorenewError)
]


def test_every_kind_of_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes)
    assert all(code.isidentifier() and code == code.lower() for code in codes)


def test_one_error_may_carry_a_code_of_its_own() -> None:
    assert DataError("no rate", code="tax_not_supported").code == "tax_not_supported"
    assert DataError("no rate").code == DataError.code == "data"


def test_a_catalogue_error_has_a_line_for_each_problem() -> None:
    error = CatalogueError(["a.toml: plan x: name: missing", "a.toml: plan y: name: missing"])
    assert error.problems == str(error).splitlines()


def test_a_catalogue_error_is_one_line_each_whatever_stands_in_a_file() -> None:
    error = CatalogueError(["plan a\nb\u2028c\x1b[2J: name: missing", "x" * 5000])
    first, second = str(error).splitlines()
    assert first == "plan a\\nb\\u2028c\\x1b[2J: name: missing"
    assert len(second) <= 1001
    assert error.problems == [first, second]


@pytest.mark.parametrize("kind", [k for k in ALL if k is not CatalogueError])
def test_error_shows_its_message(kind: type[AutorenewError]) -> None:
    assert str(kind("what was wrong")) == "what was wrong"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("wrong"), "wrong"),
        (ValueError("\n  wrong  \nbecause"), "wrong"),
        (ValueError(""), "ValueError('')"),
        (TimeoutError(), "TimeoutError()"),
        (StopIteration(), "StopIteration()"),
        (ValueError("red \x1b[31m\r\x00"), "red \\x1b[31m\\r\\x00"),
        (OperationalError("SELECT 1", {}, psycopg.OperationalError("gone\nhint")), "gone"),
        (OperationalError("SELECT 1", {}, psycopg.OperationalError()), "OperationalError()"),
    ],
)
def test_first_line_shows_the_message_of_an_error_on_one_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_first_line_does_not_show_the_parameters_of_a_statement() -> None:
    cause = psycopg.OperationalError("server closed the connection")
    error = OperationalError("SELECT :token", {"token": "tok-secret"}, cause)
    assert "tok-secret" not in first_line(error)


@given(st.text() | st.text("\x00\u2028", min_size=600))
def test_first_line_is_one_short_line_whatever_the_message_holds(message: str) -> None:
    line = first_line(ValueError(message))
    assert line
    assert line.isprintable()
    assert len(line) <= 1001
