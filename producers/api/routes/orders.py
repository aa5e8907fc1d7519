"""Orders: one, many, and what became of one.

The two that take orders are plain routes: FastAPI's own work took as long as taking an order does.
Their part of the OpenAPI document is written in :mod:`producers.api.routes.order_schemas`.
"""

import logging
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as PlainRoute

from producers.api.access import Access, Route, needs
from producers.api.doors import Doors
from producers.api.keys import Key, KeyScope
from producers.api.problems import Failed, not_found, of_answer, responses, unavailable
from producers.api.taking import Full
from producers.api.waiting import LONGEST_SECONDS
from producers.intake import Answer
from producers.intake.documents import Document, Verdict
from producers.views import orders
from producers.views.orders import OrderView, SeveralOrders
from schemas.errors import first_line
from schemas.json_bodies import Problem

log = logging.getLogger(__name__)

MOST_LINES = 1000
"""Of a batch."""
MOST_BATCH_BYTES = 16 * 1024 * 1024
ORDERS = "/v1/orders"
BATCH = "/v1/orders:batch"
_COMMAND = Problem(
    code="command_unknown", path="command", message="an order is no command: see /v1/services"
)
_ONE = ("application/json",)
_MANY = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/json")

router = APIRouter(prefix="/v1", route_class=Route, tags=["orders"])


async def post_order(request: Request) -> Response:
    """Take one order; 202 once it is committed. With ``?wait=`` 200 as soon as it has ended."""
    doors: Doors = request.app.state.doors
    key = await doors.key(request.headers, KeyScope.ORDERS_WRITE)
    _check_media_type(request, _ONE)
    wait = _wait(request)
    document = Document.read(await request.body())
    if isinstance(document.value, dict) and "command" in document.value:
        raise Failed("invalid", problems=[_COMMAND])
    _check_name(request, document)
    try:
        (answer,) = await doors.taking.take(
            key, doors.intake(key), [document], request.headers.get("traceparent")
        )
    except Full:
        raise unavailable() from None
    if answer.verdict is not Verdict.ACCEPTED:
        raise _refused(answer)
    headers = {"Location": f"{ORDERS}/{answer.key}"} if _fits_a_path(answer.key) else {}
    if answer.repeated:
        headers["Idempotency-Replayed"] = "true"
    if wait and answer.order_id is not None:
        await doors.waiters.until_ended(answer.order_id, wait)
        try:
            shown = await run_in_threadpool(_view, doors, key, answer)
        except SQLAlchemyError as error:  # it is taken, whatever can be read of it now
            log.warning("an order cannot be shown: %s", first_line(error))
            shown = None
        if shown is not None and shown.is_ended:
            return Response(to_json(shown), 200, headers, "application/json")
    return Response(_accepted(answer), 202, headers, "application/json")


async def post_batch(request: Request) -> Response:
    """Take up to 1,000 orders, one a line; an answer a line, in the same order."""
    doors: Doors = request.app.state.doors
    key = await doors.key(request.headers, KeyScope.ORDERS_WRITE)
    _check_media_type(request, _MANY)
    body = await request.body()
    lines = await run_in_threadpool(_read_lines, body)
    if not lines:
        raise Failed("invalid", "there is no order in it")
    if len(lines) > MOST_LINES:
        raise Failed("too_large", f"{len(lines)} orders, at most {MOST_LINES} are taken at once")
    doors.limit(key, len(lines) - 1)
    orders_ = [document for _, document in lines if not _is_command(document)]
    try:
        found: list[Answer] = []
        if orders_:
            trace = request.headers.get("traceparent")
            found = await doors.taking.take(key, doors.intake(key), orders_, trace)
    except Full:
        raise unavailable() from None
    answers = iter(found)
    said = b"\n".join(
        _said(number, None if _is_command(document) else next(answers))
        for number, document in lines
    )
    return Response(said + b"\n", 200, media_type="application/x-ndjson")


PLAIN_ROUTES: Sequence[PlainRoute] = (
    PlainRoute(ORDERS, post_order, methods=["POST"], include_in_schema=False),
    PlainRoute(BATCH, post_batch, methods=["POST"], include_in_schema=False),
)


def _read_lines(body: bytes) -> list[tuple[int, Document]]:
    """The lines that are not empty, with their numbers; of a batch that is too long, unread."""
    numbered = [(n, line.strip()) for n, line in enumerate(body.split(b"\n"), 1)]
    lines = [(number, line) for number, line in numbered if line]
    if len(lines) > MOST_LINES:
        return [(number, Document(line, None, None, [])) for number, line in lines]
    return [(number, Document.read(line)) for number, line in lines]


def _is_command(document: Document) -> bool:
    return isinstance(document.value, dict) and "command" in document.value


def _said(number: int, answer: Answer | None) -> bytes:
    if answer is None:
        refused = Failed("invalid", problems=[_COMMAND])
        return to_json({"line": number, "status": refused.status, "problem": refused.document})
    if answer.verdict is Verdict.ACCEPTED:
        return to_json(
            {
                "line": number, "status": 202, "key": answer.key, "order": answer.order_id,
                "repeated": answer.repeated,
            }
        )  # fmt: skip
    refused = of_answer(answer.problems)
    said: dict[str, Any] = {"line": number, "status": refused.status, "key": answer.key}
    if answer.order_id is not None and answer.verdict is Verdict.REFUSED:
        said |= {"order": answer.order_id, "repeated": answer.repeated}
    return to_json(said | {"problem": refused.document})


def _accepted(answer: Answer) -> bytes:
    return to_json({"key": answer.key, "order": answer.order_id, "state": "accepted"})


def _refused(answer: Answer) -> Failed:
    failed = of_answer(answer.problems)
    if answer.repeated:
        failed.headers["Idempotency-Replayed"] = "true"
    return failed


def _check_media_type(request: Request, accepted: Sequence[str]) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in accepted:
        raise Failed("media_type", f"send {accepted[0]}")


def _wait(request: Request) -> float:
    """How long the client waits for the order's end, in seconds."""
    given = request.query_params
    if unknown := given.keys() - {"wait"}:
        problems = [
            Problem(code="field_unknown", path=f"query.{name[:100]!a}", message="not known")
            for name in sorted(unknown)
        ]
        raise Failed("invalid", problems=problems)
    if "wait" not in given:
        return 0.0
    said = given["wait"]
    if not (said.isascii() and said.isdigit() and len(said) <= 4 and int(said) <= LONGEST_SECONDS):
        message = f"must be whole seconds from 0 to {LONGEST_SECONDS}"
        problem = Problem(code="field_invalid", path="query.wait", message=message)
        raise Failed("invalid", problems=[problem])
    return float(said)


def _check_name(request: Request, document: Document) -> None:
    """The idempotency key of an order is its ``key``; a header that says another one is a slip."""
    name = request.headers.get("idempotency-key")
    if name is None:
        return
    key = document.value.get("key") if isinstance(document.value, dict) else None
    if name != key:
        message = "must be the key of the order, if it is given"
        problem = Problem(code="field_invalid", path="header.Idempotency-Key", message=message)
        raise Failed("invalid", problems=[problem])


def _fits_a_path(key: str | None) -> bool:
    return key is not None and key.isascii() and all(c.isalnum() or c in "-._~" for c in key)


def _view(doors: Doors, key: Key, answer: Answer) -> OrderView | None:
    assert answer.order_id is not None
    with doors.read.begin() as tx:
        return orders.get(tx, answer.order_id, scope=doors.scope(key))


class OrderQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: Annotated[int, Field(ge=0, le=LONGEST_SECONDS)] = 0
    """Seconds for which to wait for the order's end; the answer comes as soon as it has ended."""
    upstream: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")] | None = (
        None
    )
    """Whose key it is, for a key of all realms; a realm's keys are those of its own upstream."""


@router.get(
    "/orders/{key:path}",  # a key may have slashes
    summary="An order and what became of it, with its timeline across all queues",
    responses=responses("not_found", "conflict", "invalid"),
)
async def get_order(
    key: Annotated[str, Path(description="The key that upstream chose.", examples=["order-1"])],
    query: Annotated[OrderQuery, Query()],
    access: Annotated[Access, needs(KeyScope.ORDERS_READ)],
) -> OrderView:
    doors = access.doors
    upstream = access.key.upstream or query.upstream

    def look() -> Any:
        with doors.read.begin() as tx:
            return orders.find(tx, key, upstream=upstream, scope=access.scope)

    if access.key.upstream is not None and query.upstream not in (None, access.key.upstream):
        raise not_found()
    if "\0" in key:
        raise not_found()
    try:
        found = await run_in_threadpool(look)
    except SeveralOrders as error:
        raise Failed("conflict", str(error)) from None
    if found is None:
        raise not_found()
    if query.wait and found.state not in orders.ENDED:
        # Who may not see it waits for nothing: how long an answer takes must not tell, either.
        if await run_in_threadpool(_get, doors, access, found, timeline=False) is None:
            raise not_found()
        await doors.waiters.until_ended(found.id, query.wait)
    shown = await run_in_threadpool(_get, doors, access, found)
    if shown is None:
        raise not_found()
    return shown


def _get(
    doors: Doors, access: Access, found: orders.Found, *, timeline: bool = True
) -> OrderView | None:
    with doors.read.begin() as tx:
        return orders.get(tx, found.id, scope=access.scope, timeline=timeline)
