"""What is checked of sentences in several languages, one file for each."""

import re
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel import Locale

from schemas.wording import LOCALES


def texts(folder: Path, language: str) -> dict[str, Any]:
    return tomllib.loads((folder / f"{language}.toml").read_text(encoding="utf-8"))


def entries(table: dict[str, Any], *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each entry: a sentence, or the forms of one."""
    for key, entry in table.items():
        if isinstance(entry, dict) and "other" not in entry:
            yield from entries(entry, *above, key)
        else:
            yield (*above, key), entry


def check_languages(folder: Path) -> None:
    assert {path.stem for path in folder.iterdir()} == set(LOCALES)


def check_same_sentences(folder: Path, language: str) -> None:
    wanted, found = (dict(entries(texts(folder, one))) for one in ("en", language))
    assert set(found) == set(wanted)
    for key, entry in found.items():
        assert type(entry) is type(wanted[key]), key


def check_plural_forms(folder: Path, language: str) -> None:
    """Every form is there where a number is shown."""
    rule = Locale.parse(LOCALES[language]).plural_form
    forms = {rule(count) for count in range(1001)}
    for key, entry in entries(texts(folder, language)):
        if isinstance(entry, dict):
            shown = any("{count}" in sentence for sentence in entry.values())
            assert set(entry) == (forms if shown else {"one", "other"}), key


def check_gaps(folder: Path, language: str, *, count: bool = False) -> None:
    """Every translation has the same placeholders.

    Args:
        count: also for the number; otherwise the form of one may leave it out.
    """
    left_out = set() if count else {"count"}

    def gaps(entry: Any) -> set[str]:
        sentences = entry.values() if isinstance(entry, dict) else [entry]
        found = [
            {f for _, f, _, _ in string.Formatter().parse(s) if f} - left_out for s in sentences
        ]
        assert all(one == found[0] for one in found), entry
        return found[0]

    wanted = dict(entries(texts(folder, "en")))
    for key, entry in entries(texts(folder, language)):
        assert gaps(entry) == gaps(wanted[key]), key


def check_french_spaces(folder: Path) -> None:
    """A no-break space before double punctuation, and typographic apostrophes."""
    assert re.findall(r"[^\xa0]:|[^\u202f][;!?]|'", _sentences(folder, "fr")) == []
    assert len(re.findall(r"\xa0:", _sentences(folder, "fr"))) > 5


def check_czech_prepositions(folder: Path) -> None:
    """None of one letter may end a line."""
    assert re.findall(r"(?i)\b[aikosuvz] \w+", _sentences(folder, "cs")) == []


def _sentences(folder: Path, language: str) -> str:
    text = (folder / f"{language}.toml").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))
