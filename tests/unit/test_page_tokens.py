"""Addresses of pages carry what only we can have signed, for an hour, each for its own page."""

import string
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.intake.links import LinkInvalid, Links, Origin, Purpose
from producers.pages.tokens import LIFETIME, Tokens

SECRET = "a secret of tests"
TOKENS = Tokens(SECRET)
AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
SERVICE = uuid.UUID("6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42")
ORIGIN = Origin(AT - timedelta(days=1), AT + timedelta(days=1))
SESSION = TOKENS.session("alice", ORIGIN, AT)
ENDED = TOKENS.ended(
    "alice", Purpose.STOP, "refused", [str(SERVICE)], {str(SERVICE): "link_outdated"},
    ORIGIN, AT,
)  # fmt: skip
LINKS = Links("https://my.example.com", SECRET)
LINK = LINKS.account_url("alice", AT).rpartition("/")[2]


def test_a_session_says_whose_services_are_seen_for_an_hour() -> None:
    session = TOKENS.read_session(SESSION)
    assert session.customer == "alice"
    assert not session.is_old(AT + LIFETIME - timedelta(seconds=1))
    assert session.is_old(AT + LIFETIME)


def test_what_pages_lead_to_ends_with_the_link_that_led_to_them() -> None:
    short = Origin(AT, AT + timedelta(minutes=5))
    session = TOKENS.read_session(TOKENS.session("alice", short, AT))
    command = {"command": "stop", "customer": "alice", "services": [str(SERVICE)]}
    url = LINKS.url(Purpose.STOP, command, AT, lifetime=LIFETIME, origin=session.origin)
    link = LINKS.read(url)
    assert session.until == link.until == short.until
    assert session.origin == link.origin == short
    assert LINKS.read(LINK).origin.made_at == AT


def test_an_ending_says_what_became_of_a_click() -> None:
    ended = TOKENS.read_ended(ENDED)
    assert (ended.customer, ended.purpose, ended.verdict) == ("alice", Purpose.STOP, "refused")
    assert ended.services == (SERVICE,)
    assert ended.problems == {str(SERVICE): "link_outdated"}
    assert ended.is_old(AT + LIFETIME)


@pytest.mark.parametrize("token", [SESSION, ENDED, LINK, "", "x", "a.b", "." * 10_000])
def test_a_token_of_one_page_is_nothing_to_another(token: str) -> None:
    if token != SESSION:
        with pytest.raises(LinkInvalid):
            TOKENS.read_session(token)
    if token != ENDED:
        with pytest.raises(LinkInvalid):
            TOKENS.read_ended(token)
    if token != LINK:
        with pytest.raises(LinkInvalid):
            LINKS.read(token)


@given(st.data())
def test_a_token_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    token, read = data.draw(
        st.sampled_from([(SESSION, TOKENS.read_session), (ENDED, TOKENS.read_ended)])
    )
    place = data.draw(st.integers(0, len(token) - 2))
    other = data.draw(st.sampled_from(string.ascii_letters + "-_.").filter(token[place].__ne__))
    with pytest.raises(LinkInvalid):
        read(token[:place] + other + token[place + 1 :])


def test_tokens_of_the_previous_secret_are_opened_and_of_another_not() -> None:
    rotated = Tokens("another secret here", SECRET)
    assert rotated.read_session(SESSION).customer == "alice"
    with pytest.raises(LinkInvalid):
        Tokens("another secret here").read_session(SESSION)


def test_an_ending_of_fifty_services_fits_into_an_address() -> None:
    many = [str(uuid.uuid4()) for _ in range(50)]
    problems = dict.fromkeys(many, "payment_method_missing")
    token = TOKENS.ended("alice", Purpose.RENEW, "refused", many, problems, ORIGIN, AT)
    assert len(token) < 4000
    assert len(TOKENS.read_ended(token).problems) == 50
