import hashlib
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer
from pydantic import ValidationError

from producers.intake.links import COMMANDING, LinkExpired, LinkInvalid, Links, Purpose
from schemas.errors import AutorenewError, ConfigurationError
from schemas.messages import parse
from tests.support import given as documents

SECRET = "a secret of tests"
LINKS = Links("https://my.example.com", SECRET)
AT = datetime(2026, 3, 2, 8, 0, 0, 123456, tzinfo=UTC)
AS_OF = "2026-03-02T08:00:00.123456Z"
SERVICE = "6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"
STOP = {"command": "stop", "customer": "alice", "services": [SERVICE]}
RESUME = {**STOP, "command": "resume"}
RENEW = {
    "command": "renew",
    "customer": "alice",
    "services": [{"id": SERVICE, "expires_on": "2026-04-01"}],
}
ACCEPT = {**RENEW, "contracts": [{"contract": "web", "version": 3}]}
COMMANDS = {
    Purpose.STOP: STOP,
    Purpose.RESUME: RESUME,
    Purpose.RENEW: RENEW,
    Purpose.ACCEPT: ACCEPT,
}
NOT_FOR_LINKS: list[Any] = [
    {},
    {**STOP, "command": "mode", "mode": "stop"},
    {"command": "accept", "customer": "alice", "contracts": ACCEPT["contracts"]},
    {"command": "payment_method", "customer": "alice", "payment_method": "tok"},
    {**STOP, "contracts": ACCEPT["contracts"]},
    {**RENEW, "payment_method": "tok"},
    {**STOP, "services": []},
    documents.order(),
]


def url(command: Any = None, at: datetime = AT) -> str:
    return LINKS.url(Purpose.STOP, command or STOP, at)


def signed(content: Any, salt: str = "autorenew link 2") -> str:
    signer = URLSafeSerializer(
        SECRET,
        salt=salt,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
    return str(signer.dumps(content))


@pytest.mark.parametrize("purpose", COMMANDING)
def test_a_link_opens_to_the_command_it_was_made_of_and_the_moment(purpose: Purpose) -> None:
    made = LINKS.url(purpose, COMMANDS[purpose], AT)
    expected = {**COMMANDS[purpose], "as_of": AS_OF}
    assert LINKS.open(made, AT) == expected
    assert LINKS.open(made.rpartition("/")[2], AT) == expected
    assert parse(documents.body(expected))[2] == []


@given(st.text(min_size=1, max_size=30).filter(str.isidentifier))
def test_a_link_needs_no_escaping_and_stays_below_its_base(customer: str) -> None:
    try:
        made = url({**STOP, "customer": customer})
    except ValidationError:
        return  # not in the form that customers' names have
    token = made.removeprefix("https://my.example.com/do/")
    assert token != made
    assert set(token) <= set(string.ascii_letters + string.digits + "-_.")


def test_the_same_command_of_the_same_moment_has_the_same_link() -> None:
    assert url() == Links("https://my.example.com/", SECRET).url(Purpose.STOP, STOP, AT)


def test_a_link_to_stop_one_service_is_short_and_many_are_compressed() -> None:
    assert len(url()) < 340
    assert len(url({**STOP, "services": [SERVICE] * 50})) < 500


@pytest.mark.parametrize("command", NOT_FOR_LINKS)
@pytest.mark.parametrize("purpose", COMMANDING)
def test_link_to_anything_else_is_neither_made_nor_opened(purpose: Purpose, command: Any) -> None:
    with pytest.raises(ValidationError):
        LINKS.url(purpose, command, AT)
    until = int(AT.timestamp()) + 60
    content = {
        "purpose": str(purpose),
        "until": until,
        "command": {**command, "as_of": AS_OF},
    }
    with pytest.raises(LinkInvalid):
        LINKS.open(signed(content), AT)
    with pytest.raises(LinkInvalid):
        LINKS.open(signed(command, "autorenew link"), AT)


@pytest.mark.parametrize("purpose", COMMANDING)
def test_link_for_one_purpose_does_not_carry_the_command_of_another(purpose: Purpose) -> None:
    for other in set(COMMANDING) - {purpose}:
        with pytest.raises(ValueError, match=f"not what a link to {purpose} carries"):
            LINKS.url(purpose, COMMANDS[other], AT)
        until = int(AT.timestamp()) + 60
        command = {**COMMANDS[other], "as_of": AS_OF}
        content = {"purpose": str(purpose), "until": until, "command": command}
        with pytest.raises(LinkInvalid):
            LINKS.open(signed(content), AT)


def test_link_that_does_not_say_when_it_was_made_or_ends_is_refused() -> None:
    whole = {"purpose": "stop", "until": 2 * 10**9, "command": {**STOP, "as_of": AS_OF}}
    LINKS.open(signed(whole), AT)
    for missing in whole:
        with pytest.raises(LinkInvalid):
            LINKS.open(signed({k: v for k, v in whole.items() if k != missing}), AT)
    with pytest.raises(LinkInvalid):
        LINKS.open(signed(whole | {"command": STOP}), AT)


@pytest.mark.parametrize("days", [1, 90])
def test_link_can_be_opened_until_its_days_have_passed(days: int) -> None:
    links = Links("https://my.example.com", SECRET, days=days)
    made, end = links.url(Purpose.STOP, STOP, AT), AT + timedelta(days=days)
    assert links.open(made, end - timedelta(seconds=1)) == {**STOP, "as_of": AS_OF}
    with pytest.raises(LinkExpired, match="too old") as refused:
        links.open(made, end)
    assert refused.value.code == "link_expired"


@pytest.mark.parametrize("command", [STOP, RESUME, RENEW, ACCEPT])
def test_link_of_the_release_before_is_taken_for_one_made_long_ago(command: Any) -> None:
    token = signed(command, "autorenew link")
    assert LINKS.open(token, AT) == {**command, "as_of": "2000-01-01T00:00:00.000000Z"}


@given(st.data())
def test_link_changed_at_any_place_is_refused(data: st.DataObject) -> None:
    token = url().rpartition("/")[2]
    # The last character of a signature holds two bits that say nothing.
    place = data.draw(st.integers(0, len(token) - 2))
    other = data.draw(st.sampled_from(string.ascii_letters + "-_.").filter(token[place].__ne__))
    with pytest.raises(LinkInvalid):
        LINKS.open(token[:place] + other + token[place + 1 :], AT)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_text_that_is_not_a_link_is_refused(text: str) -> None:
    with pytest.raises(LinkInvalid):
        LINKS.open(text, AT)


def test_a_link_that_was_cut_short_is_refused() -> None:
    token = url().rpartition("/")[2]
    for end in range(len(token)):
        with pytest.raises(LinkInvalid):
            LINKS.open(token[:end], AT)


def test_link_signed_with_another_secret_is_refused() -> None:
    with pytest.raises(LinkInvalid):
        Links("https://my.example.com", "another secret here").open(url(), AT)


@pytest.mark.parametrize("content", [["stop"], "stop", 1, None])
def test_signed_value_that_is_not_a_command_is_refused(content: Any) -> None:
    for salt in ("autorenew link", "autorenew link 2"):
        with pytest.raises(LinkInvalid):
            LINKS.open(signed(content, salt), AT)


def test_error_of_an_invalid_link_is_readable() -> None:
    with pytest.raises(AutorenewError, match="not valid") as caught:
        LINKS.open("x", AT)
    assert caught.value.code == "link_invalid"


@pytest.mark.parametrize(
    ("secret", "why"),
    [("fifteen letters", "at least 16"), (" " * 16, "blank"), ("fifteen" * 4, "repeats")],
)
def test_a_weak_secret_is_refused_and_not_repeated(secret: str, why: str) -> None:
    for both in ((secret, None), (SECRET, secret)):
        with pytest.raises(ConfigurationError, match=why) as caught:
            Links("https://my.example.com", *both)
        assert "fifteen" not in str(caught.value)
    assert Links("https://my.example.com", secret, development=True)


def test_link_of_the_previous_secret_is_opened_and_new_ones_are_signed_with_the_current() -> None:
    before, other = Links("https://my.example.com", "the secret of last year"), "one of last month"
    rotated = Links("https://my.example.com", SECRET, "the secret of last year")
    assert rotated.open(before.url(Purpose.STOP, STOP, AT), AT) == {**STOP, "as_of": AS_OF}
    assert rotated.url(Purpose.STOP, STOP, AT) == url()
    assert rotated.open(signed(STOP, "autorenew link"), AT)["command"] == "stop"
    with pytest.raises(LinkInvalid):  # after two more changes
        Links("https://my.example.com", other, SECRET).open(before.url(Purpose.STOP, STOP, AT), AT)


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
    made = links.url(Purpose.STOP, STOP, AT)
    assert made.startswith("http://localhost:8080/click/do/")
    assert links.open(made, AT) == {**STOP, "as_of": AS_OF}


def test_a_link_to_all_services_names_its_customer_and_carries_no_command() -> None:
    made = LINKS.account_url("alice", AT)
    opened = LINKS.read(made)
    assert (opened.purpose, opened.customer, opened.command) == (Purpose.ACCOUNT, "alice", None)
    assert opened.made_at == AT
    assert not opened.is_old(AT + timedelta(days=90, seconds=-1))
    assert opened.is_old(AT + timedelta(days=90))
    with pytest.raises(LinkInvalid, match="no command"):
        LINKS.open(made, AT)


@pytest.mark.parametrize(
    "content",
    [
        {"purpose": "account", "until": 2 * 10**9, "customer": "alice"},
        {"purpose": "account", "until": 2 * 10**9, "customer": "a\r\nb", "as_of": AS_OF},
        {"purpose": "account", "until": "2e9", "customer": "alice", "as_of": AS_OF},
        {"purpose": "account", "until": 10**20, "customer": "alice", "as_of": AS_OF},
        {"purpose": "account", "until": 2 * 10**9, "customer": "alice",
         "as_of": "2026-19-39T99:99:99.000000Z"},
        {"purpose": "account", "until": 2 * 10**9, "command": {**STOP, "as_of": AS_OF}},
        {"purpose": "stop", "until": 2 * 10**9, "customer": "alice", "as_of": AS_OF},
    ],
)  # fmt: skip
def test_link_to_services_that_is_not_whole_is_refused(content: Any) -> None:
    with pytest.raises(LinkInvalid):
        LINKS.read(signed(content))


def test_a_link_says_what_it_was_made_for_even_when_it_is_old() -> None:
    opened = LINKS.read(url())
    assert (opened.purpose, opened.customer) == (Purpose.STOP, "alice")
    assert opened.command == {**STOP, "as_of": AS_OF}
    assert opened.is_old(AT + timedelta(days=90))


def test_a_link_can_be_made_to_end_sooner() -> None:
    made = LINKS.url(Purpose.STOP, STOP, AT, lifetime=timedelta(hours=1))
    assert LINKS.open(made, AT + timedelta(minutes=59))
    with pytest.raises(LinkExpired):
        LINKS.open(made, AT + timedelta(hours=1))
