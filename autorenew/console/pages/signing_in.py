"""Signing in and out: by a password, or by a link that does so once."""

import hmac
import logging
import secrets

from starlette.responses import Response

from autorenew.console import accounts, openid, sessions
from autorenew.console.context import BadInput, Console, Visit
from autorenew.console.rendering import page, span
from autorenew.console.routing import (
    cookie_name,
    pre_cookie_name,
    safe_next,
    see,
    set_cookie,
)

log = logging.getLogger(__name__)

_WRONG = "That name and password do not belong together."
_TOO_OLD = "That link was used, or is too old. Ask for another one, or sign in."
_AGAIN = "The form was too old. Try again."


def show_form(visit: Visit) -> Response:
    """Where one signs in. Who has already, goes on."""
    if visit.session is not None:
        return see(safe_next(visit.query.get("next")))
    return _form(visit, safe_next(visit.query.get("next")))


def _form(visit: Visit, after: str, problem: str | None = None, status: int = 200) -> Response:
    """The form, with a token of its own: nobody signs somebody else in as themselves."""
    token = visit.pre_token or secrets.token_urlsafe(32)
    answer = page(
        visit, "sign_in.html", after=after, problem=problem, form_token=sessions.csrf_of(token),
        openid=visit.console.settings.oidc_issuer is not None, status=status,
    )  # fmt: skip
    if not visit.pre_token:
        set_cookie(visit.console, answer, pre_cookie_name(visit.console), token)
    return answer


def _is_own(visit: Visit) -> bool:
    said = visit.form.get("csrf") or ""
    return bool(visit.pre_token) and sessions.is_csrf(visit.pre_token, said)


def sign_in(visit: Visit) -> Response:
    """By name and password."""
    console = visit.console
    after = safe_next(visit.form.get("next"))
    name, password = visit.form.get("name") or "", visit.form.get("password") or ""
    name = name[: accounts.LONGEST_NAME]
    if not _is_own(visit):
        return _form(visit, after, _AGAIN, 403)
    with console.engine.begin() as tx:
        wait = sessions.seconds_to_wait(tx, name, visit.address)
        if not wait:
            sessions.count_attempt(tx, name, visit.address)
    if wait:
        said = f"Too many attempts. Wait {span(wait)}, then try again."
        return _form(visit, after, said, 429)
    if not accounts.is_password(console.engine, name, password):
        log.warning("sign-in refused from %s", visit.address)
        return _form(visit, after, _WRONG, 401)
    with console.engine.begin() as tx:
        sessions.succeeded(tx, name, visit.address)
        if visit.token:
            sessions.end(tx, visit.token)
        token = sessions.begin(tx, name, console.limits, how="password")
    return signed_in(visit, token, after)


def signed_in(visit: Visit, token: str, after: str) -> Response:
    """Go on, with the cookie of a new session."""
    answer = see(after)
    set_cookie(visit.console, answer, cookie_name(visit.console), token)
    answer.delete_cookie(pre_cookie_name(visit.console), path="/", secure=visit.console.secure)
    return answer


def show_link(visit: Visit) -> Response:
    """A link that signs in once is used by a button: what only looks at links uses none up."""
    token = visit.pre_token or secrets.token_urlsafe(32)
    answer = page(
        visit, "sign_in_once.html", token=visit.query.get("token") or "",
        form_token=sessions.csrf_of(token),
    )  # fmt: skip
    if not visit.pre_token:
        set_cookie(visit.console, answer, pre_cookie_name(visit.console), token)
    return answer


def use_link(visit: Visit) -> Response:
    console = visit.console
    if not _is_own(visit):
        return _form(visit, "/", _AGAIN, 403)
    with console.engine.begin() as tx:
        name = accounts.use_link(tx, visit.form.get("token") or "")
        if name is not None:
            if visit.token:
                sessions.end(tx, visit.token)
            token = sessions.begin(tx, name, console.limits, how="link")
    if name is None:
        return _form(visit, "/", _TOO_OLD, 401)
    return signed_in(visit, token, "/")


def sign_out(visit: Visit) -> Response:
    with visit.console.engine.begin() as tx:
        sessions.end(tx, visit.token)
    answer = see("/sign-in")
    answer.delete_cookie(cookie_name(visit.console), path="/", secure=visit.console.secure)
    # What a shared machine's browser kept of the pages.
    answer.headers["clear-site-data"] = '"cache", "storage"'
    return answer


def _flow_cookie(console: Console) -> str:
    return f"{cookie_name(console)}-openid"


def _provider(visit: Visit) -> openid.Provider:
    settings = visit.console.settings
    if settings.oidc_issuer is None:
        raise BadInput("no provider of OpenID Connect is set")
    base = (settings.console_url or visit.base_url).rstrip("/")
    return openid.Provider(settings, f"{base}/sign-in/openid/callback")


def begin_openid(visit: Visit) -> Response:
    """Go to where one's organisation signs one in."""
    flow = secrets.token_urlsafe(32)
    try:
        with _provider(visit) as provider:
            answer = see(provider.address(flow))
    except openid.NotSignedIn as error:
        return _form(visit, "/", str(error), 502)
    # Lax: it comes back with a browser that another site sends here.
    set_cookie(visit.console, answer, _flow_cookie(visit.console), flow, lax=True)
    return answer


def end_openid(visit: Visit) -> Response:
    """Back from there."""
    console, flow = visit.console, visit.cookies.get(_flow_cookie(visit.console), "")
    state, code = visit.query.get("state") or "", visit.query.get("code")
    expected = openid.derived(flow, "state")
    if not flow or not hmac.compare_digest(expected.encode(), state.encode()):
        return _form(visit, "/", _AGAIN, 403)
    if code is None:
        return _form(visit, "/", "You were not signed in there.", 401)
    try:
        with _provider(visit) as provider:
            person = provider.person(flow, code)
        with console.engine.begin() as tx:
            name = openid.take(tx, person)
            token = sessions.begin(tx, name, console.limits, how="openid")
    except openid.NotSignedIn as error:
        return _form(visit, "/", str(error), 403)
    # A page of ours goes on: a browser that another site has sent here would send no strict cookie.
    answer = page(visit, "signed_in.html")
    set_cookie(console, answer, cookie_name(console), token)
    answer.delete_cookie(_flow_cookie(console), path="/", secure=console.secure)
    return answer
