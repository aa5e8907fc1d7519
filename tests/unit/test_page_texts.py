"""The sentences of the pages are whole in every language, and what is shown is made safe."""

import uuid
from datetime import date
from typing import Any

import pytest

from producers.intake.links import COMMANDING
from producers.pages.rows import Action, Row, Status
from producers.pages.said import TEXTS, next_said, preferred, problem_said, row_said, wording
from schemas.rules.notices import Situation
from schemas.rules.payable import Obstacle
from schemas.values import Money
from schemas.wording import LOCALES
from tests.support import sentences

each_language = pytest.mark.parametrize("language", LOCALES)
SHOWN = [s for s in Situation if s not in (Situation.UNDELIVERED, Situation.DELIVERED)]


def row(state: Situation | Status, **changes: Any) -> Row:
    facts: dict[str, Any] = {
        "name": "Site",
        "detail": "a.example",
        "last_day": date(2026, 12, 4),
        "on": date(2026, 12, 1),
        "amount": Money(4544, "EUR"),
    }
    return Row(uuid.UUID(int=1), state=state, **(facts | changes))


def test_every_file_is_a_language() -> None:
    sentences.check_languages(TEXTS)


@each_language
def test_every_language_has_the_same_sentences_forms_and_gaps(language: str) -> None:
    sentences.check_same_sentences(TEXTS, language)
    sentences.check_plural_forms(TEXTS, language)
    sentences.check_gaps(TEXTS, language)


def test_french_and_czech_keep_what_belongs_together_on_one_line() -> None:
    sentences.check_french_spaces(TEXTS)
    sentences.check_czech_prepositions(TEXTS)


@each_language
def test_everything_that_can_be_so_of_a_service_has_a_sentence(language: str) -> None:
    words = wording(language)
    for state in (*SHOWN, *Status):
        for on in (date(2026, 12, 1), None):
            said = next_said(row(state, on=on), words)
            assert said
            assert "{" not in said
    assert set(words.sentences["next"]) <= {
        *map(str, SHOWN), *map(str, Status), *(f"{s}_undated" for s in SHOWN)
    }  # fmt: skip


@each_language
def test_everything_that_can_be_clicked_has_its_sentences(language: str) -> None:
    words = wording(language)
    assert {str(action) for action in Action} == {str(purpose) for purpose in COMMANDING}
    for action in Action:
        for group in ("button", "choose", "title", "explanation", "done", "after"):
            assert words.has(group, action), (group, action)
        assert words.has("button", f"{action}_again")


@each_language
def test_every_problem_of_a_click_has_a_sentence_and_an_unknown_one_too(language: str) -> None:
    words = wording(language)
    assert {str(one) for one in Obstacle} <= set(words.sentences["problem"])
    assert problem_said("something_new", words) == words.say("problem", "any")


def test_a_day_that_is_missing_is_the_last_one_that_is_paid() -> None:
    said = next_said(row(Situation.PAY, on=None), wording("en"))
    assert said == "it is not renewed by itself; renew it by 4 December 2026, for €45.44, with tax"


def test_an_amount_without_tax_does_not_claim_one_and_nothing_is_free() -> None:
    words = wording("en")
    assert "€45.44, no tax is due" in next_said(row(Situation.PAY, is_taxed=False), words)
    assert "it is free" in next_said(row(Situation.PAY, amount=Money(0, "EUR")), words)


@pytest.mark.parametrize(
    "name", ["a\r\nSet-Cookie: b", "a\u202eb", "a\u2028b", "a\x00b", "a\ud800b"]
)
def test_names_are_one_line_of_visible_text(name: str) -> None:
    said = row_said(row(Situation.RENEWS, name=name, detail=name), wording("en"))
    assert said.label.isprintable()
    assert said.name.startswith("a ")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("fr", "fr"), ("cs-CZ,cs;q=0.9,en;q=0.8", "cs"), ("de, fr;q=0.2", "fr"), ("", "en"),
        ("de", "en"), ("fr;q=0", "en"), ("fr;q=x, cs", "cs"), ("*", "en"), ("FR-be", "fr"),
        ("," * 10_000, "en"), ("fr;q=nan", "en"), ("en;q=0.1, fr;q=0.1", "en"),
    ],
)  # fmt: skip
def test_language_of_somebody_unknown_is_what_their_browser_asks_for(
    header: str, language: str
) -> None:
    assert preferred(header) == language
