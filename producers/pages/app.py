"""The pages over HTTP: routes, limits, headers, and what is said when something fails."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Scope

from producers.intake import Intake
from producers.intake.links import Links
from producers.pages import rendering
from producers.pages.account import ON_A_PAGE
from producers.pages.said import preferred
from producers.pages.site import Site
from producers.pages.tokens import Tokens
from producers.web import health
from producers.web.addresses import AddressLimits, Buckets, client_of, network
from producers.web.headers import PAGE_POLICY, SecurityHeaders
from producers.web.limits import BodyLimits
from schemas.clock import Clock
from schemas.database import is_circumstance
from schemas.errors import ConfigurationError, first_line
from schemas.settings import Settings

log = logging.getLogger(__name__)

# A form has a token or a name.
MOST_BODY_BYTES = 32 * 1024
# Of the requests of an address those that ask for a new link: one in so many.
NEW_LINK_SHARE = 20
NEW_LINK_SECONDS = 0.3
"""How long an answer about a new link takes at least."""
RETRY_AFTER_SECONDS = 10

_Shown = Callable[[Request, str], Response]


class Pages:
    """The handlers of all routes; each runs in a thread of the pool."""

    def __init__(self, site: Site, settings: Settings, prefix: str) -> None:
        self._site = site
        self._prefix = prefix
        self._trusted = [network(one) for one in settings.trusted_proxies]
        self._new_links = Buckets(max(1, settings.pages_per_minute // NEW_LINK_SHARE))

    def routes(self) -> list[Route]:
        return [
            Route("/", self._serve("home", self._home)),
            Route("/do/{token}", self._serve("link", self._show_link), methods=["GET"]),
            Route("/do/{token}", self._serve("link", self._do_link), methods=["POST"]),
            Route("/done/{token}", self._serve("done", self._ended)),
            Route("/my/{token}", self._serve("account", self._account)),
            Route("/my/{token}/choose", self._serve("choose", self._choose)),
            Route("/link", self._send_link, methods=["POST"]),
            Route("/sent", self._serve("sent", self._sent)),
            Route(f"/{rendering.STYLE_NAME}", lambda _request: rendering.style()),
        ]

    def _serve(self, name: str, shown: _Shown) -> Callable[[Request], Response]:
        """A handler that answers whatever happens, and logs no address: it has a token in it."""

        def serve(request: Request) -> Response:
            language, began = language_of(request.scope), time.monotonic()
            try:
                if request.method == "POST" and is_of_another_site(request):
                    answer: Response = self._site.render.error(language, "cross_site", status=403)
                else:
                    answer = shown(request, language)
            except Exception as error:
                answer = self._failed(name, error, language)
            took = (time.monotonic() - began) * 1000
            log.info("%s %s: %s, %.0f ms", request.method, name, answer.status_code, took)
            return answer

        return serve

    def _failed(self, name: str, error: Exception, language: str) -> Response:
        if is_circumstance(error):
            log.warning("%s: %s", name, first_line(error))
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return self._site.render.error(language, "away", status=503, headers=headers)
        log.error("%s failed", name, exc_info=error)
        return self._site.render.error(language, "defect", status=500)

    def _home(self, _request: Request, language: str) -> Response:
        return self._site.render.error(language, "home", status=200)

    def _show_link(self, request: Request, language: str) -> Response:
        left = _number(request.query_params.get("left", ""))
        token = request.path_params["token"]
        return self._site.show_link(token, language, min(left, ON_A_PAGE))

    def _do_link(self, request: Request, language: str) -> Response:
        return self._site.do_link(request.path_params["token"], language)

    def _ended(self, request: Request, language: str) -> Response:
        return self._site.show_ended(request.path_params["token"], language)

    def _account(self, request: Request, language: str) -> Response:
        asked = request.query_params
        return self._site.show_account(
            request.path_params["token"],
            language,
            page=_number(asked.get("page", "")),
            say=asked.get("say", ""),
        )

    def _choose(self, request: Request, language: str) -> Response:
        asked = request.query_params
        return self._site.choose(
            request.path_params["token"],
            language,
            asked.get("action", ""),
            asked.getlist("service"),
        )

    def _sent(self, _request: Request, language: str) -> Response:
        return self._site.show_sent(language)

    async def _send_link(self, request: Request) -> Response:
        """Whatever is asked for, the answer is the same: nobody learns which accounts there are."""
        began = time.monotonic()
        body = await request.body()
        client = client_of(request.scope, self._trusted)
        wait = self._new_links.wait(client)

        def send(request: Request, language: str) -> Response:
            if wait:
                return too_many(self._site, language, wait)
            form = _form(body)
            return self._site.send_link(form.get("link", ""), form.get("customer", ""), language)

        answer = await run_in_threadpool(self._serve("new link", send), request)
        # To ask for one takes longer than to find nobody: the time must not tell, either.
        await asyncio.sleep(max(0.0, began + NEW_LINK_SECONDS - time.monotonic()))
        return answer


def too_many(site: Site, language: str, wait: float) -> Response:
    headers = {"Retry-After": str(int(wait) + 1)}
    return site.render.error(language, "too_many", status=429, headers=headers)


def language_of(scope: Scope) -> str:
    """Of somebody who is not known yet."""
    wished = next((v for n, v in scope["headers"] if n == b"accept-language"), b"")
    return preferred(wished.decode("latin-1"))


def is_of_another_site(request: Request) -> bool:
    """Whether a browser says that another site sends a form here.

    Nothing hangs on it: who can send a link's form has the link. ``Origin`` says nothing here, as
    ``Referrer-Policy: no-referrer`` makes it ``null`` for our own forms, too (Fetch, "append a
    request Origin header").
    """
    return request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _form(body: bytes) -> Mapping[str, str]:
    try:
        fields = parse_qs(body.decode("utf-8"), max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0


def application(
    settings: Settings, *, write: Engine, read: Engine, intake: Intake, clock: Clock
) -> ASGIApp:
    """The whole of it.

    Args:
        write: as the role ``api``; read: as ``readonly``.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    prefix = urlsplit(settings.need("link_base_url")).path.rstrip("/")
    site = Site(
        write=write,
        read=read,
        intake=intake,
        links=Links.of(settings),
        tokens=Tokens.of(settings),
        clock=clock,
        prefix=prefix,
        days=settings.link_days,
    )
    pages = Pages(site, settings, prefix)

    def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        name = {404: "not_found", 405: "method"}.get(status, "defect")
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else None
        return site.render.error(language_of(request.scope), name, status=status, headers=headers)

    def checked(engine: Engine) -> Callable[[], None]:
        def check() -> None:
            engine.connect().close()

        return check

    own: Sequence[Route | Mount] = pages.routes()
    if prefix:
        own = [Mount(prefix, routes=own), Route("/", lambda _: RedirectResponse(f"{prefix}/"))]
    routes = [
        *health.routes({"database": intake.check, "read database": checked(read)}),
        *own,
    ]
    app: ASGIApp = Starlette(routes=routes, exception_handlers={HTTPException: failed})

    def refused(status: int, _code: str, _said: str) -> tuple[bytes, str]:
        answer = site.render.error("", "too_large", status=status)
        return bytes(answer.body), "text/html; charset=utf-8"

    def limited(scope: Scope) -> tuple[bytes, str]:
        answer = site.render.error(language_of(scope), "too_many", status=429)
        return bytes(answer.body), "text/html; charset=utf-8"

    app = BodyLimits(app, most=MOST_BODY_BYTES, answer=refused)
    app = AddressLimits(
        app,
        per_minute=settings.pages_per_minute,
        trusted=[network(one) for one in settings.trusted_proxies],
        answer=limited,
    )
    more = {}
    if settings.need("link_base_url").startswith("https://"):
        more["strict-transport-security"] = "max-age=31536000"
    return SecurityHeaders(app, policy=PAGE_POLICY, more=more)


def check(settings: Settings) -> None:
    """What the pages need, before anything is opened.

    Raises:
        ConfigurationError: a setting is missing.
    """
    for needed in ("link_base_url", "link_secret"):
        settings.need(needed)
    if settings.account_url is not None:
        log.info("AUTORENEW_ACCOUNT_URL is set: e-mails lead there instead of to our own list")
    try:
        Links.of(settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"AUTORENEW_LINK_BASE_URL or _SECRET: {error}") from None
