"""Operators of an organisation sign in with OpenID Connect: authorization code, PKCE, ID token.

By Authlib, the extra ``oidc``. What has to be remembered in between, state, nonce and verifier,
follows from one random value in a cookie. A claim of the ID token says the role.
"""

import hmac
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from autorenew.console import accounts
from producers import history
from producers.history import Operator
from schemas.errors import AutorenewError, ConfigurationError, first_line
from schemas.settings import Settings
from schemas.values import OperatorRole

log = logging.getLogger(__name__)

SECONDS = 10.0
"""For each answer of the provider."""
# Asymmetric ones only: HS256 and none can be forged by anyone who reads the provider's
# configuration.
_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS512", "EdDSA")
_LEEWAY_SECONDS = 60


class NotSignedIn(AutorenewError):
    """The provider vouches for nobody, or for somebody who has no role here."""

    code = "not_signed_in"


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider vouches for.

    Attributes:
        identity: the provider and its own, unchanging name of them.
        name: as they are called here.
    """

    identity: str
    name: str
    role: OperatorRole


def derived(flow: str, what: str) -> str:
    """``state``, ``nonce`` or ``verifier`` of a sign-in that was begun."""
    return hmac.new(flow.encode(), what.encode(), sha256).hexdigest()


def check(settings: Settings) -> None:
    """
    Raises:
        ConfigurationError: something is missing to sign in with OpenID Connect.
    """
    if settings.oidc_issuer is None:
        return
    settings.need("oidc_client_id")
    settings.need("oidc_client_secret")
    if not settings.oidc_roles:
        raise ConfigurationError("AUTORENEW_OIDC_ROLES says nobody's role: nobody could sign in")
    try:
        _client_class()
    except ImportError:
        raise ConfigurationError(
            "AUTORENEW_OIDC_ISSUER needs Authlib: install autorenew[oidc]"
        ) from None


def _client_class() -> Any:
    with warnings.catch_warnings():
        # Authlib would rather have httpx2; with httpx it works the same.
        warnings.simplefilter("ignore")
        from authlib.integrations.httpx_client import OAuth2Client

    return OAuth2Client


class Provider:
    """The provider of the settings, with connections of its own until it is left.

    Args:
        redirect_uri: where it sends browsers back to.
    """

    def __init__(self, settings: Settings, redirect_uri: str) -> None:
        self._settings = settings
        self._issuer = (settings.oidc_issuer or "").rstrip("/")
        self._client = _client_class()(
            settings.need("oidc_client_id"),
            settings.need("oidc_client_secret"),
            scope="openid profile email",
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=SECONDS,
        )

    def __enter__(self) -> "Provider":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def address(self, flow: str) -> str:
        """Where a browser signs in.

        Raises:
            NotSignedIn: the provider cannot be reached, or is another one.
        """
        with _trouble():
            url, _ = self._client.create_authorization_url(
                self._metadata()["authorization_endpoint"],
                state=derived(flow, "state"),
                nonce=derived(flow, "nonce"),
                code_verifier=derived(flow, "verifier"),
            )
        return str(url)

    def person(self, flow: str, code: str) -> Person:
        """Whom it vouches for.

        Raises:
            NotSignedIn: nobody, or somebody who has no role here.
        """
        with _trouble():
            metadata = self._metadata()
            token = self._client.fetch_token(
                metadata["token_endpoint"], code=code, code_verifier=derived(flow, "verifier")
            )
            claims = self._claims(metadata, token, derived(flow, "nonce"))
        said = claims.get(self._settings.oidc_role_claim)
        role = role_of([said] if isinstance(said, str) else said or (), self._settings.oidc_roles)
        name = claims.get("preferred_username") or claims.get("email") or claims["sub"]
        if role is None:
            raise NotSignedIn(f"{name} is known, and has no role here: ask an administrator")
        return Person(f"{self._issuer}#{claims['sub']}", accounts.check_name(str(name)), role)

    def _metadata(self) -> Mapping[str, Any]:
        found = self._get(f"{self._issuer}/.well-known/openid-configuration")
        if str(found["issuer"]).rstrip("/") != self._issuer:
            raise ValueError(f"it calls itself {found['issuer']}")
        return found

    def _get(self, url: str) -> Mapping[str, Any]:
        answer = self._client.request("GET", url, withhold_token=True)
        answer.raise_for_status()
        document: Mapping[str, Any] = answer.json()
        return document

    def _claims(
        self, metadata: Mapping[str, Any], token: Mapping[str, Any], nonce: str
    ) -> Mapping[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.jwk import KeySet

        keys = KeySet.import_key_set(dict(self._get(metadata["jwks_uri"])))  # type: ignore[arg-type]
        decoded = jwt.decode(token["id_token"], keys, algorithms=list(_ALGORITHMS))
        claims: Any = CodeIDToken(
            decoded.claims,
            decoded.header,
            {
                "iss": {"essential": True, "values": [metadata["issuer"]]},
                "aud": {"essential": True, "value": self._client.client_id},
            },
            {"nonce": nonce, "client_id": self._client.client_id, **_access_token(token)},
        )
        claims.validate(leeway=_LEEWAY_SECONDS)
        found: Mapping[str, Any] = claims
        return found


def _access_token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"access_token": token["access_token"]} if "access_token" in token else {}


@contextmanager
def _trouble() -> Iterator[None]:
    """Whatever goes wrong with the provider is said in the log; to a browser, that it did.

    Raises:
        NotSignedIn: something went wrong.
    """
    try:
        yield
    except AutorenewError:
        raise
    except Exception as error:
        log.warning("OpenID Connect: %s: %s", type(error).__name__, first_line(error))
        raise NotSignedIn(
            "your organisation's sign-in did not work; the log of the console says why"
        ) from None


def role_of(said: Iterable[object], roles: Mapping[str, OperatorRole]) -> OperatorRole | None:
    """The role that may do most, of those that a claim's values stand for; None: none of them.

    >>> role_of(["staff", "ops"], {"ops": OperatorRole.OPERATOR, "staff": OperatorRole.READER})
    <OperatorRole.OPERATOR: 'operator'>
    """
    found = {roles[value] for value in said if isinstance(value, str) and value in roles}
    return next((role for role in reversed(OperatorRole) if role in found), None)


def take(tx: Connection, person: Person) -> str:
    """Add somebody whom the provider vouches for, or give them the role that it says now.

    Raises:
        NotSignedIn: somebody else has that name here.
    """
    with history.acting(Operator(person.name, "OpenID Connect")):
        known = accounts.accounts(tx, person.name)
        if not known:
            accounts.add(tx, person.name, person.role, issuer=person.identity)
        elif known[0].issuer != person.identity:
            raise NotSignedIn(f"there is another operator {person.name!r}: ask an administrator")
        elif known[0].role is not person.role:
            accounts.set_role(tx, person.name, person.role)
    return person.name
