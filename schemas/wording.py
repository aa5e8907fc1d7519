"""Sentences, dates and amounts in the language of whoever reads them: for e-mails and pages.

The sentences of each are in files of its own, one for a language.
"""

import tomllib
from copy import copy
from datetime import date
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_date

from schemas.fields import CURRENCY_DIGITS
from schemas.values import Money

# British English, which writes the day before the month.
LOCALES = {"en": "en_GB", "fr": "fr", "cs": "cs"}
DEFAULT = "en"

# Names that customers choose are cut to this many characters.
LONGEST = 200


class Wording:
    """The sentences, dates and amounts of one language.

    Args:
        folder: holds ``LANGUAGE.toml``.
        language: one of ``LOCALES``.
    """

    def __init__(self, folder: Path, language: str) -> None:
        self.language = language
        self.locale = Locale.parse(LOCALES[language])
        path = folder / f"{language}.toml"
        self.sentences: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))

    def say(self, *key: str, count: int = 1, **values: str) -> str:
        """The sentence under a key, in the plural form for ``count``."""
        sentence: Any = self.sentences
        for part in key:
            sentence = sentence[part]
        if isinstance(sentence, dict):
            sentence = sentence.get(self.locale.plural_form(count), sentence["other"])
        return str(sentence).format_map({"count": count, **values})

    def has(self, *key: str) -> bool:
        """Whether there is a sentence under a key."""
        sentence: Any = self.sentences
        for part in key:
            if not isinstance(sentence, dict) or part not in sentence:
                return False
            sentence = sentence[part]
        return True

    @lru_cache(1000)  # noqa: B019 - there is one object per language, and it is never freed
    def date(self, day: date) -> str:
        written = format_date(day, "long", locale=self.locale)
        if self.language == "fr" and day.day == 1:
            # CLDR has "1 mai"; correct is "1er mai" (Lexique de l'Imprimerie nationale).
            return f"1er{written.removeprefix('1')}"
        return written

    def money(self, money: Money) -> str:
        """With the digits of ISO 4217: CLDR has fewer where small coins went out of use."""
        digits = CURRENCY_DIGITS[money.currency]
        pattern = copy(self.locale.currency_formats["standard"])
        pattern.frac_prec = (digits, digits)
        amount = Decimal(money.amount).scaleb(-digits)
        return str(pattern.apply(amount, self.locale, money.currency, currency_digits=False))


def language_of(language: str) -> str:
    """One of ``LOCALES``, of a language with or without a country; any other means English.

    >>> language_of("fr-BE"), language_of("de")
    ('fr', 'en')
    """
    primary = language.replace("_", "-").partition("-")[0].lower()
    return primary if primary in LOCALES else DEFAULT


def wording(folder: Path, language: str) -> Wording:
    """The wording of a language, with or without a country, loaded once."""
    return _loaded(folder, language_of(language))


@cache
def _loaded(folder: Path, language: str) -> Wording:
    return Wording(folder, language)


def one_line(text: str, longest: int = LONGEST) -> str:
    """One printable line: no control characters, lone surrogates or marks that reorder text."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 5 * longest])
    line = " ".join(printable.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
