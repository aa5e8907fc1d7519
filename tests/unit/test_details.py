from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.provisioning.drivers.details import LONGEST_TEXT, MOST_DETAILS, told

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_texts_are_told_under_their_names() -> None:
    assert told({"address": "192.0.2.7", "login": "c-1"}) == {
        "address": "192.0.2.7",
        "login": "c-1",
    }


@pytest.mark.parametrize("details", [None, [], "text", 5, {}, {"size": 5, "ok": True, "x": None}])
def test_what_is_no_object_of_texts_tells_nothing(details: Any) -> None:
    assert told(details) == {}


def test_texts_are_cleaned_and_cut() -> None:
    assert told({"a\x00\n": " one\ntwo\x1b ", "long": "x" * 500, "blank": " \n"}) == {
        "a": "onetwo",
        "long": "x" * 200,
    }


@pytest.mark.parametrize(
    "name",
    [
        "password", "root_password", "Pass", "PASSWD", "admin-pwd", "secret", "auth_token",
        "api_key", "API key", "access-key", "private_key", "credentials", "passphrase",
    ],
)  # fmt: skip
def test_what_is_named_like_a_secret_is_never_told(name: str) -> None:
    assert told({name: "hunter2", "host": "a"}) == {"host": "a"}


@pytest.mark.parametrize("name", ["passenger_version", "keyboard", "host_key"])
def test_what_only_sounds_like_a_secret_is_told(name: str) -> None:
    assert told({name: "x"}) == {name: "x"}


@given(JSON)
def test_there_are_few_of_them_and_they_are_short(details: Any) -> None:
    kept = told(details)
    assert len(kept) <= MOST_DETAILS
    for name, text in kept.items():
        assert 0 < len(name) <= 50
        assert 0 < len(text) <= LONGEST_TEXT
        assert text.isprintable()
