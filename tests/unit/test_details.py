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
        "root_pw", "rootpw", "pw", "PW1", "rootPwHash", "key", "ssh_key", "host_key", "sshKey",
        "license_key", "apikey", "psk", "wpa2psk", "wifi-psk", "PIN", "simPin", "pin2", "puk",
        "passwort", "Kennwort", "Schlüssel", "heslo", "mot de passe", "motDePasse", "contraseña",
        "auth_code", "authInfo",
    ],
)  # fmt: skip
def test_what_is_named_like_a_secret_is_never_told(name: str) -> None:
    assert told({name: "hunter2", "host": "a"}) == {"host": "a"}


@pytest.mark.parametrize(
    "name", ["passenger_version", "keyboard", "shipping", "upward", "opinion", "spin"]
)
def test_what_only_sounds_like_a_secret_is_told(name: str) -> None:
    assert told({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        "pass\u200bword", "sec\x00ret", "to\u00adken", "\uff50\uff41\uff53\uff53",
        "to\u0301ken", "to\ufe0fken", "x" * 60 + "password",
    ],
)  # fmt: skip
def test_secret_is_known_by_what_its_name_reads_as(name: str) -> None:
    assert told({name: "hunter2", "host": "a"}) == {"host": "a"}


def test_names_are_told_in_one_form() -> None:
    assert told({"\uff48\uff4f\uff53\uff54": "a"}) == {"host": "a"}


def test_names_and_texts_of_other_types_are_left_out() -> None:
    assert told({1: "a", None: "b", "c": b"d", "host": "a"}) == {"host": "a"}


@given(JSON)
def test_what_was_told_once_is_told_again_as_it_is(details: Any) -> None:
    once = told(details)
    assert told(once) == once


@given(JSON)
def test_there_are_few_of_them_and_they_are_short(details: Any) -> None:
    kept = told(details)
    assert len(kept) <= MOST_DETAILS
    for name, text in kept.items():
        assert 0 < len(name) <= 50
        assert 0 < len(text) <= LONGEST_TEXT
        assert text.isprintable()
