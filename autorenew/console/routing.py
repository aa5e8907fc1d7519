"""Between a request and its page: who asks, whether they may, and what goes wrong.

A page that changes something is a POST with the token of its session, for a role that may do it;
all that it records in the history is told as done by its operator.
"""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import quote, urlsplit

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from autorenew.console import sessions
from autorenew.console.context import BadInput, Console, Values, Visit, check_characters
from autorenew.console.rendering import page
from producers import history
from producers.history import Operator
from producers.web.addresses import client_of
from schemas.database import is_circumstance, is_too_slow
from schemas.errors import AutorenewError, first_line
from schemas.values import OperatorRole

log = logging.getLogger(__name__)

Handler = Callable[[Visit], Response]
MOST_FIELDS = 2000


def cookie_name(console: Console) -> str:
    """With HTTPS no other host of the domain, and no page without it, can set this cookie."""
    return "__Host-autorenew" if console.secure else "autorenew"


def pre_cookie_name(console: Console) -> str:
    return f"{cookie_name(console)}-sign-in"


def set_cookie(
    console: Console, response: Response, name: str, value: str, *, lax: bool = False
) -> None:
    response.set_cookie(
        name, value, path="/", secure=console.secure, httponly=True,
        samesite="lax" if lax else "strict",
    )  # fmt: skip


def route(
    console: Console,
    path: str,
    handler: Handler,
    *,
    role: OperatorRole | None = OperatorRole.READER,
    method: str = "GET",
) -> Route:
    """A page.

    Args:
        role: who may see it; None: whoever comes.
    """

    async def endpoint(request: Request) -> Response:
        form = await _fields(request) if method == "POST" else {}
        return await run_in_threadpool(_answer, console, request, form, handler, role)

    wrapped: Callable[[Request], Awaitable[Response]] = endpoint
    return Route(path, wrapped, methods=[method], name=f"{method} {path}")


async def _fields(request: Request) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = defaultdict(list)
    async with request.form(max_files=0, max_fields=MOST_FIELDS) as form:
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields[name].append(value)
    return dict(fields)


def _answer(
    console: Console,
    request: Request,
    form: dict[str, list[str]],
    handler: Handler,
    role: OperatorRole | None,
) -> Response:
    visit = _visit(console, request, form)
    try:
        given = (*visit.query.fields.values(), *visit.form.fields.values(), visit.path.values())
        for values in given:
            for value in values:
                check_characters(value)
        session = None
        is_refresh = visit.is_refresh
        if visit.token:
            with console.engine.begin() as tx:
                session = sessions.find(tx, visit.token, console.limits, touch=not is_refresh)
        visit = replace(visit, session=session)
        refused = _refuse(visit, role)
        if refused is not None:
            return refused
        if session is None:
            return handler(visit)
        with history.acting(Operator(session.operator, visit.form.get("note"))):
            return handler(visit)
    except AutorenewError as error:
        return page(visit, "error.html", status=422, title="That was not done", said=str(error))
    except SQLAlchemyError as error:
        return _database(visit, error)


def _visit(console: Console, request: Request, form: dict[str, list[str]]) -> Visit:
    query: dict[str, list[str]] = defaultdict(list)
    for name, value in request.query_params.multi_items():
        query[name].append(value)
    url = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return Visit(
        console=console,
        method=request.method,
        url=url,
        address=client_of(request.scope, console.proxies),
        query=Values(dict(query)),
        form=Values(form),
        path={name: str(value) for name, value in request.path_params.items()},
        session=None,
        is_refresh=request.headers.get("hx-request") == "true" and request.method == "GET",
        token=request.cookies.get(cookie_name(console), ""),
        pre_token=request.cookies.get(pre_cookie_name(console), ""),
        cookies=request.cookies,
        base_url=f"{request.url.scheme}://{request.url.netloc}",
        origin=request.headers.get("origin"),
        fetch_site=request.headers.get("sec-fetch-site"),
        host=request.headers.get("host", ""),
    )


def _refuse(visit: Visit, role: OperatorRole | None) -> Response | None:
    """Why it is not done; None: it is."""
    if visit.method == "POST" and not _is_own_form(visit):
        return _forbidden(visit, "The form came from another page. Open the page again.")
    if role is None:
        return None
    if visit.session is None:
        if visit.is_refresh:  # the page as a whole goes to where one signs in
            return Response(status_code=401, headers={"HX-Redirect": "/sign-in"})
        after = quote(visit.url, safe="") if visit.method == "GET" and visit.url != "/" else ""
        return RedirectResponse(f"/sign-in?next={after}" if after else "/sign-in", 303)
    if not visit.session.role.may(role):
        return _forbidden(
            visit, f"Your role is {visit.session.role}. This is for the role {role}, or above."
        )
    if visit.method == "POST" and not sessions.is_csrf(visit.token, visit.form.get("csrf") or ""):
        return _forbidden(visit, "The form was too old. Open the page again, and repeat it.")
    return None


def _is_own_form(visit: Visit) -> bool:
    """Whether the browser says that the form is ours. Old ones say nothing: the token decides."""
    if visit.fetch_site is not None and visit.fetch_site not in ("same-origin", "none"):
        return False
    return visit.origin in (None, "null") or urlsplit(visit.origin or "").netloc == visit.host


def _forbidden(visit: Visit, said: str) -> Response:
    return page(visit, "error.html", status=403, title="Not allowed", said=said)


def _database(visit: Visit, error: SQLAlchemyError) -> Response:
    if is_too_slow(error):
        said = "The database took too long for this. Narrow the filter, or try again."
        return page(visit, "error.html", status=503, title="Too slow", said=said)
    if is_circumstance(error):
        log.warning("no page: %s", first_line(error))
        said = "The database cannot be reached now. Try again."
        if visit.method == "POST":  # it may have been lost while it committed
            said = "The database was lost meanwhile. Look whether it was done, then try again."
        return page(visit, "error.html", status=503, title="Not now", said=said)
    raise error


def safe_next(said: str | None) -> str:
    """Where to go after signing in: a path of ours, and nothing that a browser takes for a host."""
    if said is None or not said.startswith("/") or said[1:2] in ("/", "\\"):
        return "/"
    if any(not c.isprintable() or c == "\\" for c in said):
        return "/"
    parts = urlsplit(said)
    return "/" if parts.scheme or parts.netloc else said


def see(path: str) -> Response:
    """Go on to another page."""
    return RedirectResponse(path, 303)


def not_found(said: str) -> BadInput:
    return BadInput(said)
