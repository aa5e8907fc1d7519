"""All pages with who may see them, as an ASGI application."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from autorenew.console.context import Console, Values, Visit
from autorenew.console.pages import (
    bulk,
    correcting,
    emails,
    failed,
    found,
    history,
    lanes,
    mending,
    operators,
    overview,
    rejected,
    signing_in,
    stating,
)
from autorenew.console.rendering import page
from autorenew.console.routing import Handler, route
from producers.web import health
from producers.web.headers import SCRIPTED_PAGE_POLICY, SecurityHeaders
from producers.web.limits import BodyLimits
from schemas.database import check_schema
from schemas.values import OperatorRole

STATIC = Path(__file__).parent / "static"
MOST_FORM_BYTES = 256 * 1024

READER, OPERATOR = OperatorRole.READER, OperatorRole.OPERATOR
ADMINISTRATOR = OperatorRole.ADMINISTRATOR

# Path, method, page, and who may see it; None: whoever comes.
PAGES: tuple[tuple[str, str, Handler, OperatorRole | None], ...] = (
    ("/", "GET", overview.show, READER),
    ("/sign-in", "GET", signing_in.show_form, None),
    ("/sign-in", "POST", signing_in.sign_in, None),
    ("/sign-in/once", "GET", signing_in.show_link, None),
    ("/sign-in/once", "POST", signing_in.use_link, None),
    ("/sign-in/openid", "GET", signing_in.begin_openid, None),
    ("/sign-in/openid/callback", "GET", signing_in.end_openid, None),
    ("/sign-out", "POST", signing_in.sign_out, READER),
    ("/password", "GET", operators.password_form, READER),
    ("/password", "POST", operators.change_password, READER),
    ("/find", "GET", found.find, READER),
    ("/orders/{id}", "GET", found.show_order, READER),
    ("/services/{id}", "GET", found.show_service, READER),
    ("/customers/{id:path}", "GET", found.show_customer, READER),
    ("/invoices/{number}", "GET", found.show_invoice, READER),
    ("/credit-notes/{number}", "GET", found.show_credit_note, READER),
    ("/emails/{id}", "GET", emails.show, READER),
    ("/failed", "GET", failed.list_groups, READER),
    ("/failed/tasks", "GET", failed.list_tasks, READER),
    ("/failed/new", "GET", failed.count_new, READER),
    ("/failed/task/{subject}", "GET", failed.show_task, READER),
    ("/failed/confirm", "GET", mending.confirm, OPERATOR),
    ("/failed/act", "POST", mending.act, OPERATOR),
    ("/failed/edit", "GET", correcting.bulk_form, OPERATOR),
    ("/failed/edit", "POST", correcting.edit_many, OPERATOR),
    ("/failed/edit/{subject}", "GET", correcting.edit_form, OPERATOR),
    ("/failed/edit/{subject}", "POST", correcting.edit, OPERATOR),
    ("/failed/done", "GET", stating.confirm_done, OPERATOR),
    ("/failed/done", "POST", stating.done, OPERATOR),
    ("/failed/settle", "GET", stating.settle_form, OPERATOR),
    ("/failed/settle", "POST", stating.settle, OPERATOR),
    ("/bulk", "GET", bulk.list_operations, READER),
    ("/bulk/{id}", "GET", bulk.show, READER),
    ("/bulk/{id}/stop", "GET", bulk.confirm_stop, OPERATOR),
    ("/bulk/{id}/stop", "POST", bulk.stop, OPERATOR),
    ("/lanes", "GET", lanes.list_lanes, READER),
    ("/lanes/{lane}", "GET", lanes.show, READER),
    ("/lanes/{lane}/pause", "GET", lanes.confirm_pause, OPERATOR),
    ("/lanes/{lane}/close", "GET", lanes.confirm_close, OPERATOR),
    ("/lanes/{lane}/pause", "POST", lanes.pause, OPERATOR),
    ("/lanes/{lane}/resume", "GET", lanes.confirm_resume, OPERATOR),
    ("/lanes/{lane}/resume", "POST", lanes.resume, OPERATOR),
    ("/lanes/{lane}/limit", "POST", lanes.limit, OPERATOR),
    ("/lanes/{lane}/probe", "POST", lanes.probe, OPERATOR),
    ("/rejected", "GET", rejected.list_rejected, READER),
    ("/rejected/put-back", "GET", rejected.confirm_put_back, ADMINISTRATOR),
    ("/rejected/put-back", "POST", rejected.put_back, ADMINISTRATOR),
    ("/rejected/{id}", "GET", rejected.show, READER),
    ("/history", "GET", history.list_deeds, READER),
    ("/operators", "GET", operators.list_operators, ADMINISTRATOR),
    ("/operators/add", "POST", operators.add, ADMINISTRATOR),
    ("/operators/role", "POST", operators.change_role, ADMINISTRATOR),
    ("/operators/remove", "GET", operators.confirm_remove, ADMINISTRATOR),
    ("/operators/remove", "POST", operators.remove, ADMINISTRATOR),
)


_KEPT = {"cache-control": "public, max-age=3600"}


def build(console: Console) -> ASGIApp:
    """The application."""

    def database() -> None:
        check_schema(console.engine)

    async def missing(request: Request, _error: Exception) -> Response:
        return _plain(console, request, 404, "Not found", "There is no such page.")

    async def wrong_method(request: Request, _error: Exception) -> Response:
        return _plain(console, request, 405, "Not allowed", "That page takes no such request.")

    async def broken(request: Request, _error: Exception) -> Response:
        said = "It is in the log of the console. Nothing of this request was kept."
        return _plain(console, request, 500, "Something went wrong here", said)

    routes: list[Route | Mount] = [
        *health.routes({"database": database}),
        Mount("/static", SecurityHeaders(StaticFiles(directory=STATIC), more=_KEPT)),
        *(
            route(console, path, handler, role=role, method=method)
            for path, method, handler, role in PAGES
        ),
    ]
    handlers = {404: missing, 405: wrong_method, 500: broken}
    pages = Starlette(routes=routes, exception_handlers=handlers)
    # Around all of it: Starlette answers what is broken outside of its own middleware.
    limited = BodyLimits(pages, most=MOST_FORM_BYTES)
    return SecurityHeaders(limited, policy=SCRIPTED_PAGE_POLICY, more=_more(console))


def _more(console: Console) -> dict[str, str]:
    # A year, as browsers' lists of hosts ask for.
    return {"strict-transport-security": "max-age=31536000"} if console.secure else {}


def _plain(console: Console, request: Request, status: int, title: str, said: str) -> Response:
    """A page for whoever comes, without anything from the database."""
    visit = Visit(
        console=console, method=request.method, url="/", address="", query=Values(), form=Values(),
        path={}, session=None, is_refresh=False, token="", pre_token="", cookies={}, base_url="",
        origin=None, fetch_site=None, host="",
    )  # fmt: skip
    return page(visit, "error.html", status=status, title=title, said=said)
