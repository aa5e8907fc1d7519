"""The console as a server, and a link that signs in once."""

from urllib.parse import urlsplit

from sqlalchemy import Engine

from autorenew.console import accounts, app, openid
from autorenew.console.context import Console, is_loopback
from autorenew.console.sessions import Limits
from producers.web.addresses import network
from producers.web.serving import WebServer
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.settings import Settings
from schemas.values import OperatorRole

FIRST_OPERATOR = "administrator"
"""Whom ``autorenew up`` signs in."""


def serve(
    engine: Engine, reader: Engine, clock: Clock, settings: Settings, *, host: str, port: int
) -> WebServer:
    """The server, not yet started.

    Args:
        engine: as the role ``console``.
        reader: as the role ``readonly``.

    Raises:
        ConfigurationError: the address is in use or may not be used; OpenID Connect is set in part.
    """
    openid.check(settings)
    url = settings.console_url
    secure = urlsplit(url).scheme == "https" if url else not is_loopback(host)
    console = Console(
        engine=engine,
        reader=reader,
        catalogue=CatalogueCache(),
        clock=clock,
        settings=settings,
        limits=Limits(settings.console_idle_seconds, settings.console_session_seconds),
        secure=secure,
        proxies=[network(one) for one in settings.trusted_proxies],
    )
    return WebServer(app.build(console), host=host, port=port, name="console")


def link(engine: Engine, url: str, name: str) -> str:
    """A URL that signs an operator in once."""
    with engine.begin() as tx:
        token = accounts.make_link(tx, accounts.get(tx, name).name)
    return f"{url.rstrip('/')}/sign-in/once?token={token}"


def first_link(engine: Engine, url: str) -> str:
    """A URL that signs an administrator in once; they are added where there is none."""
    with engine.begin() as tx:
        if not accounts.accounts(tx, FIRST_OPERATOR):
            accounts.add(tx, FIRST_OPERATOR, OperatorRole.ADMINISTRATOR)
    return link(engine, url, FIRST_OPERATOR)
