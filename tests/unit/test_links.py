import hashlib
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from producers.intake.links import LinkInvalid, Links
from schemas.errors import AutorenewError, ConfigurationError

SECRET = "a secret of tests"
LINKS = Links("https://my.example.com", SECRET)
STOP = {
    "command": "stop",
    "customer": "alice",
    "services": ["6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"],
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
commands = st.dictionaries(st.text(max_size=8), json_values, max_size=5)


@given(commands)
def test_a_link_opens_to_the_command_it_was_made_of(command: dict[str, Any]) -> None:
    url = LINKS.url(command)
    assert LINKS.open(url) == command
    assert LINKS.open(url.rpartition("/")[2]) == command


@given(commands)
def test_a_link_needs_no_escaping_and_stays_below_its_base(command: dict[str, Any]) -> None:
    url = LINKS.url(command)
    token = url.removeprefix("https://my.example.com/do/")
    assert token != url
    assert set(token) <= set(string.ascii_letters + string.digits + "-_.")


def test_the_same_command_has_the_same_link() -> None:
    assert LINKS.url(STOP) == Links("https://my.example.com/", SECRET).url(STOP)


def test_a_link_to_stop_one_service_is_short_and_many_are_compressed() -> None:
    assert len(LINKS.url(STOP)) < 220
    many = {**STOP, "services": ["6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"] * 50}
    assert len(LINKS.url(many)) < 400


@given(st.data())
def test_link_changed_at_any_place_is_refused(data: st.DataObject) -> None:
    token = LINKS.url(STOP).rpartition("/")[2]
    # The last character of a signature holds two bits that say nothing.
    place = data.draw(st.integers(0, len(token) - 2))
    other = data.draw(st.sampled_from(string.ascii_letters + "-_.").filter(token[place].__ne__))
    with pytest.raises(LinkInvalid):
        LINKS.open(token[:place] + other + token[place + 1 :])


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_text_that_is_not_a_link_is_refused(text: str) -> None:
    with pytest.raises(LinkInvalid):
        LINKS.open(text)


def test_a_link_that_was_cut_short_is_refused() -> None:
    token = LINKS.url(STOP).rpartition("/")[2]
    for end in range(len(token)):
        with pytest.raises(LinkInvalid):
            LINKS.open(token[:end])


def test_link_signed_with_another_secret_is_refused() -> None:
    with pytest.raises(LinkInvalid):
        Links("https://my.example.com", "another secret here").open(LINKS.url(STOP))


def test_signed_value_that_is_not_a_command_is_refused() -> None:
    signer = URLSafeSerializer(
        SECRET,
        salt="autorenew link",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
    assert LINKS.open(str(signer.dumps({}))) == {}
    with pytest.raises(LinkInvalid):
        LINKS.open(str(signer.dumps(["stop"])))


def test_error_of_an_invalid_link_is_readable() -> None:
    with pytest.raises(AutorenewError, match="not valid") as caught:
        LINKS.open("x")
    assert caught.value.code == "link_invalid"


def test_a_short_secret_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="at least 16 characters") as caught:
        Links("https://my.example.com", "fifteen letters")
    assert "fifteen" not in str(caught.value)


@pytest.mark.parametrize(
    "base",
    ["", "my.example.com", "ftp://example.com", "https://", "https://x:99999", "https://x/?a=b",
     "https://x/#a", "javascript:alert(1)"],
)  # fmt: skip
def test_invalid_base_url_is_refused(base: str) -> None:
    with pytest.raises(ConfigurationError, match="not a base URL"):
        Links(base, SECRET)


def test_base_url_may_have_a_path() -> None:
    links = Links("http://localhost:8080/click/", SECRET)
    assert links.url(STOP).startswith("http://localhost:8080/click/do/")
    assert links.open(links.url(STOP)) == STOP
