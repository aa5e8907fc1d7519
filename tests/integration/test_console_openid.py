"""Signing in to the console with OpenID Connect, at a small provider."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey

from autorenew.console import accounts, openid, serving
from producers.web.serving import WebServer
from schemas.clock import SystemClock
from schemas.errors import ConfigurationError
from schemas.settings import Settings
from schemas.values import OperatorRole
from tests.conftest import Database
from tests.support.openid import CLIENT, SECRET, Provider

SignIn = Callable[[], tuple[httpx.Client, httpx.Response]]
ROLES = {"ops": OperatorRole.OPERATOR, "staff": OperatorRole.READER}


@pytest.fixture
def provider() -> Iterator[Provider]:
    running = Provider(claims={"preferred_username": "olga", "groups": ["staff", "ops"]}).start()
    yield running
    running.stop()


@pytest.fixture
def console(database: Database, provider: Provider) -> Iterator[WebServer]:
    settings = Settings(
        oidc_issuer=provider.url, oidc_client_id=CLIENT, oidc_client_secret=SECRET, oidc_roles=ROLES
    )
    engines = database.engine("console"), database.engine("readonly")
    server = serving.serve(*engines, SystemClock(), settings, host="127.0.0.1", port=0)
    with server:
        yield server


@pytest.fixture
def sign_in(console: WebServer) -> Iterator[SignIn]:
    """Goes there and back, as a browser does."""
    clients: list[httpx.Client] = []

    def there_and_back() -> tuple[httpx.Client, httpx.Response]:
        client = httpx.Client(base_url=console.url, follow_redirects=True, timeout=30)
        clients.append(client)
        return client, client.get("/sign-in/openid")

    yield there_and_back
    for client in clients:
        client.close()


def test_whom_the_provider_vouches_for_is_signed_in(sign_in: SignIn, database: Database) -> None:
    client, answer = sign_in()
    assert answer.status_code == 200, answer.text
    assert "olga" in client.get("/").text
    (operator,) = database.all("SELECT name, role, password_hash FROM operators")
    assert tuple(operator) == ("olga", "operator", None)


def test_the_provider_says_the_role_at_each_sign_in(
    sign_in: SignIn, provider: Provider, database: Database
) -> None:
    first, _ = sign_in()
    provider.claims["groups"] = "staff"
    second, _ = sign_in()
    assert database.value("SELECT role FROM operators") == "reader"
    assert "Sign in" in first.get("/").text
    assert "olga" in second.get("/").text


@pytest.mark.parametrize(
    "forged",
    [
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"nonce": "another"},
        {"exp": 1},
        {"sub": None},
    ],
)
def test_a_token_that_is_not_meant_for_us_signs_nobody_in(
    sign_in: SignIn, provider: Provider, database: Database, forged: dict[str, Any]
) -> None:
    provider.forged = forged
    answer = sign_in()[1]
    assert answer.status_code == 403
    assert database.all("SELECT * FROM console_sessions") == []


def test_a_token_of_another_key_signs_nobody_in(
    sign_in: SignIn, provider: Provider, database: Database
) -> None:
    provider.signs_with = RSAKey.generate_key(2048, {"kid": "1"})
    answer = sign_in()[1]
    assert answer.status_code == 403
    assert database.all("SELECT * FROM operators") == []


def test_who_has_no_role_here_is_told_so(sign_in: SignIn, provider: Provider) -> None:
    provider.claims["groups"] = ["sales"]
    answer = sign_in()[1]
    assert answer.status_code == 403
    assert "no role here" in answer.text


def test_nobody_takes_the_name_of_another_operator(
    sign_in: SignIn, provider: Provider, database: Database
) -> None:
    with database.engine("console").begin() as tx:
        accounts.add(tx, "olga", OperatorRole.ADMINISTRATOR, "correct horse battery")
    answer = sign_in()[1]
    assert answer.status_code == 403
    provider.claims |= {"preferred_username": "erin"}
    sign_in()
    provider.claims |= {"sub": "2"}
    answer = sign_in()[1]
    assert answer.status_code == 403
    assert "another operator" in answer.text


def test_an_answer_that_was_not_asked_for_signs_nobody_in(console: WebServer) -> None:
    with httpx.Client(base_url=console.url) as client:
        answer = client.get("/sign-in/openid/callback?code=x&state=y")
        assert answer.status_code == 403
        client.get("/sign-in/openid")
        for state in ("y", "%C3%A9"):
            answer = client.get(f"/sign-in/openid/callback?code=x&state={state}")
            assert answer.status_code == 403


def test_a_provider_that_is_gone_is_said_on_the_form(sign_in: SignIn, provider: Provider) -> None:
    provider.stop()
    answer = sign_in()[1]
    assert answer.status_code == 502
    assert "did not work" in answer.text


def test_a_half_set_provider_stops_the_start() -> None:
    for settings in (
        Settings(oidc_issuer="https://id.example.com"),
        Settings(
            oidc_issuer="https://id.example.com", oidc_client_id=CLIENT, oidc_client_secret=SECRET
        ),
    ):
        with pytest.raises(ConfigurationError):
            openid.check(settings)
