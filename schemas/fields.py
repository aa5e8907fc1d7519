"""The one definition of each value that comes in from outside: what is taken, and how it is kept.

Every door and the import validate with these types, so that what one takes all others can use. A
value that is not taken is refused with a sentence that never repeats it: it may be a secret.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated

import pycountry
from email_validator import EmailNotValidError, validate_email
from iso4217 import Currency
from pydantic import AfterValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError
from stdnum.eu import vat

# ISO 4217: the digits of the minor unit. Those without one (gold, funds, tests) are no currency of
# a price.
CURRENCY_DIGITS = {
    currency.value: currency.exponent for currency in Currency if currency.exponent is not None
}
# ISO 3166-1 and ISO 639-1.
COUNTRIES = frozenset(country.alpha_2 for country in pycountry.countries)
LANGUAGES = frozenset(
    language.alpha_2 for language in pycountry.languages if hasattr(language, "alpha_2")
)

MAX_EMAIL_CHARACTERS = 254  # RFC 5321, 4.5.3.1.3, without the angle brackets


def is_clean(text: str) -> bool:
    """Whether a text is what it looks like: NFC, on one line, without blanks at its ends and
    without control, format or surrogate characters. Two clean texts that differ look different."""
    if text.isascii():
        return text.isprintable() and text == text.strip()
    return (
        text == text.strip()
        # Not printable: what Unicode calls control, format, surrogate, unassigned, or a separator.
        and text.isprintable()
        and unicodedata.is_normalized("NFC", text)
    )


def _shown(description: str, **more: str | int) -> WithJsonSchema:
    """What the JSON Schema of a text says; it cannot say all that is checked."""
    return WithJsonSchema({"type": "string", "description": description, **more})


def _clean(most: int) -> AfterValidator:
    def check(text: str) -> str:
        if not (0 < len(text) <= most and is_clean(text)):
            raise PydanticCustomError(
                "value_invalid",
                f"must be 1 to {most} printable characters in Unicode's form NFC,"
                " without blanks at its ends",
            )
        return text

    return AfterValidator(check)


def _token(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,200}", text):
        raise PydanticCustomError(
            "value_invalid", "must be 1 to 200 visible ASCII characters, none of them a blank"
        )
    return text


def email_address(text: str) -> str:
    """An address as mail servers take it: its domain in ASCII and in small letters.

    Raises:
        ValueError: it is none, or its local part is not ASCII, which few mail servers take.
    """
    local, at, domain = text.partition("@")
    # Most are plain, and of few domains: those are known, and cost a tenth.
    known = _domain(domain) if at and _PLAIN_LOCAL.fullmatch(local) else None
    if known is not None and len(local) + 1 + len(known) <= MAX_EMAIL_CHARACTERS:
        return f"{local}@{known}"
    try:
        if not is_clean(text):
            raise EmailNotValidError
        found = validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        raise PydanticCustomError(
            "value_invalid", "must be an e-mail address with an ASCII name before the @"
        ) from None
    if found.ascii_email is None or len(found.ascii_email) > MAX_EMAIL_CHARACTERS:
        raise PydanticCustomError(
            "value_invalid",
            f"must be an e-mail address of at most {MAX_EMAIL_CHARACTERS} characters",
        )
    return found.ascii_email


_PLAIN_LOCAL = re.compile(r"[A-Za-z0-9_+-]{1,64}|(?=.{1,64}$)[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)+")


@lru_cache(10_000)
def _domain(text: str) -> str | None:
    """A domain as addresses are kept with; None: no address of a plain name has it."""
    try:
        found = validate_email(f"a@{text}", check_deliverability=False, strict=True)
    except EmailNotValidError:
        return None
    return found.ascii_domain if is_clean(text) else None


def vat_number(text: str, country: str) -> str:
    """A VAT number as it is kept: without separators, in capitals, with its country's prefix.

    Args:
        country: the customer's. A member state of the EU has a prefix, that of Greece is ``EL``.

    >>> vat_number("de 136695976", "DE"), vat_number("GR094259216", "GR")
    ('DE136695976', 'EL094259216')
    """
    compact = re.sub(r"[ \u00a0./-]", "", text).upper()
    if country.lower() not in vat.MEMBER_STATES:
        return compact
    prefix = "EL" if country == "GR" else country
    if prefix == "EL" and compact.startswith("GR"):
        return prefix + compact[2:]
    # Numbers of some countries begin with letters of their own, so a prefix is what fits.
    if not compact[:2].isalpha() and vat.is_valid(prefix + compact):
        return prefix + compact
    return compact


def _one_of(known: frozenset[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in known:
            raise PydanticCustomError("value_invalid", f"must be {what}")
        return text

    return check


MAX_IDENTIFIER = 100
_CLEAN = (
    "Printable characters in Unicode's form NFC, without blanks at its ends"
    " and without control or format characters."
)
Identifier = Annotated[
    str, _clean(MAX_IDENTIFIER), _shown(_CLEAN, minLength=1, maxLength=MAX_IDENTIFIER)
]
"""Names something: a customer, a key, a plan."""


def is_identifier(text: str) -> bool:
    """Whether it could be an :data:`Identifier`."""
    return 0 < len(text) <= MAX_IDENTIFIER and is_clean(text)


OptionName = Identifier
Text = Annotated[str, _clean(200), _shown(_CLEAN, minLength=1, maxLength=200)]
"""A value that people read, such as that of an option or the id of a resource."""
Token = Annotated[
    str,
    AfterValidator(_token),
    _shown("Of a gateway, for a payment method; never a card number.", pattern="^[!-~]{1,200}$"),
]
"""Stands for a payment method at its gateway."""
EmailAddress = Annotated[
    str,
    StringConstraints(max_length=4 * MAX_EMAIL_CHARACTERS),
    AfterValidator(email_address),
    _shown(
        "With an ASCII name before the @.", format="idn-email", maxLength=MAX_EMAIL_CHARACTERS * 4
    ),
]
Country = Annotated[
    str,
    AfterValidator(_one_of(COUNTRIES, "a country's code of ISO 3166, such as FR")),
    _shown("A country's code of ISO 3166, such as FR.", pattern="^[A-Z]{2}$"),
]
Language = Annotated[
    str,
    AfterValidator(_one_of(LANGUAGES, "a language's code of ISO 639, such as fr")),
    _shown("A language's code of ISO 639, such as fr.", pattern="^[a-z]{2}$"),
]
CurrencyCode = Annotated[
    str,
    AfterValidator(
        _one_of(frozenset(CURRENCY_DIGITS), "a currency's code of ISO 4217, such as EUR")
    ),
]
VatNumber = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9 \u00a0./-]{4,20}$")]
"""As it is written; :func:`vat_number` says how it is kept."""
