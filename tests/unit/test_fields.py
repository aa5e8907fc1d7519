"""What is taken in, and how it is kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.fields import (
    COUNTRIES,
    CURRENCY_DIGITS,
    Country,
    CurrencyCode,
    EmailAddress,
    Identifier,
    Language,
    Text,
    Token,
    VatNumber,
    vat_number,
)
from schemas.rules.tax import check_vat_number
from schemas.shown import for_csv, for_terminal


def taken(kind: Any, value: str) -> str | None:
    """As it is kept; None if it is refused."""
    try:
        kept: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        (problem,) = error.errors()
        assert not value or value not in problem["msg"]
        return None
    return kept


@pytest.mark.parametrize("kind", [Identifier, Text])
@pytest.mark.parametrize("text", ["c-1", "Zoë Müller", "名前", "a b", "'", "=1"])
def test_a_text_is_kept_as_it_is(kind: Any, text: str) -> None:
    assert taken(kind, text) == text


@pytest.mark.parametrize("kind", [Identifier, Text])
@pytest.mark.parametrize(
    "text",
    [
        "",
        " c-1",
        "c-1 ",
        "c-1\u00a0",
        "c\u00a01",
        "c-1\u3000",
        "c-1\n",
        "c\x001",
        "c\x7f1",
        "c\x9b31m1",  # a terminal's escape
        "c\x9d1",
        "c\u202e1",  # turns what follows around
        "c\u200b1",
        "c\ufeff1",
        "c\u20281",
        "c\ud8001",
        "e\u0301",  # not NFC
    ],
)
def test_a_text_that_is_not_what_it_looks_like_is_refused(kind: Any, text: str) -> None:
    assert taken(kind, text) is None


def test_a_text_has_a_greatest_length() -> None:
    assert taken(Identifier, "a" * 100) is not None
    assert taken(Identifier, "a" * 101) is None
    assert taken(Text, "a" * 200) is not None
    assert taken(Text, "a" * 201) is None


@pytest.mark.parametrize("token", ["tok_1", "a" * 200, "~!"])
def test_a_token_is_kept_as_it_is(token: str) -> None:
    assert taken(Token, token) == token


@pytest.mark.parametrize("token", ["", "tok 1", " tok", "tok\t", "tok\u00a0", "tök", "a" * 201])
def test_a_token_with_a_blank_or_foreign_letter_is_refused(token: str) -> None:
    assert taken(Token, token) is None


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("jeanne.o'neill+x@example.com", "jeanne.o'neill+x@example.com"),
        ("Jeanne@Example.COM", "Jeanne@example.com"),
        ("jeanne@bücher.example", "jeanne@xn--bcher-kva.example"),
        ("j" * 64 + "@example.com", "j" * 64 + "@example.com"),
    ],
)
def test_an_address_is_kept_as_mail_servers_take_it(address: str, kept: str) -> None:
    assert taken(EmailAddress, address) == kept


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a..b@x.com",
        ".a@x.com",
        "a.@x.com",
        "a,b@example.com",
        "<a>@example.com",
        "Jeanne <a@example.com>",
        '"a b"@example.com',
        "é@example.com",
        "a@localhost",
        "a@[192.0.2.1]",
        "a@-x.com",
        "a@x..com",
        "a@example.com ",
        "a@exam\u00adple.com\n",
        "j" * 65 + "@example.com",
        "a@" + "e" * 63 + "." + "e" * 63 + "." + "e" * 63 + "." + "e" * 63 + ".com",
    ],
)
def test_an_address_that_no_mail_reaches_is_refused(address: str) -> None:
    assert taken(EmailAddress, address) is None


def test_currencies_are_those_of_iso_4217() -> None:
    assert {"HUF", "JPY", "CHF", "SEK", "DKK", "NOK", "RON", "KWD", "BRL"} < CURRENCY_DIGITS.keys()
    digits = [CURRENCY_DIGITS[code] for code in ("EUR", "JPY", "XOF", "TND", "KWD", "CLF")]
    assert digits == [2, 0, 0, 3, 3, 4]
    assert (taken(CurrencyCode, "EUR"), taken(CurrencyCode, "DEM")) == ("EUR", None)
    assert taken(CurrencyCode, "XAU") is None


def test_countries_and_languages_are_those_of_iso_3166_and_iso_639() -> None:
    assert len(COUNTRIES) >= 249
    assert [taken(Country, code) for code in ("FR", "fr", "ZZ", "UK")] == ["FR", None, None, None]
    assert [taken(Language, code) for code in ("fr", "FR", "zz")] == ["fr", None, None]


@pytest.mark.parametrize(
    ("written", "country", "kept"),
    [
        ("DE136695976", "DE", "DE136695976"),
        ("de136695976", "DE", "DE136695976"),
        ("de 136 695 976", "DE", "DE136695976"),
        ("136695976", "DE", "DE136695976"),
        ("DE-136.695.976", "DE", "DE136695976"),
        ("GR094259216", "GR", "EL094259216"),
        ("EL 094259216", "GR", "EL094259216"),
        ("094259216", "GR", "EL094259216"),
        ("FR40303265045", "FR", "FR40303265045"),
        ("40303265045", "FR", "FR40303265045"),
        ("GB 980 7806 84", "GB", "GB980780684"),
    ],
)
def test_a_vat_number_is_kept_with_its_prefix_and_without_separators(
    written: str, country: str, kept: str
) -> None:
    assert taken(VatNumber, written) == written
    assert vat_number(written, country) == kept
    assert vat_number(kept, country) == kept
    if country != "GB":
        check_vat_number(kept, country)


def test_a_vat_number_of_another_country_keeps_its_prefix() -> None:
    assert vat_number("FR40303265045", "DE") == "FR40303265045"


@given(st.text())
def test_what_a_terminal_is_shown_is_one_line_that_cannot_move_its_cursor(text: str) -> None:
    shown = for_terminal(text)
    assert shown.isprintable()
    assert len(shown) == len(text)


@pytest.mark.parametrize("char", "=+-@\t\r")
def test_no_spreadsheet_takes_a_cell_for_a_formula(char: str) -> None:
    assert for_csv(f"{char}1+1") == f"'{char}1+1"
    assert for_csv(f"1{char}1") == f"1{char}1"
