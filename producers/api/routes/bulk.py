"""For operators: what is done about failed tasks in bulk."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from producers.api.access import Access, Document, IdempotencyKey, Route, once
from producers.api.problems import Failed, not_found, responses
from producers.api.routes.failed import SAYS, FailedView, failed_view
from producers.api.routes.operating import TAG, Chosen, Reading, Writing, unknown
from producers.api.routes.services import NO_REASON, Because, Why
from producers.control import bulk, groups, lanes
from producers.control.bulk import BulkOperation, NoBulkOperation
from producers.control.naming import UnknownName
from schemas.json_bodies import Problem
from schemas.values import BulkKind, Money

router = APIRouter(prefix="/v1", route_class=Route, tags=[TAG])

LISTED = 20


class BulkView(BaseModel):
    """A bulk operation and how far it is."""

    id: uuid.UUID
    kind: BulkKind
    state: str
    asked_by: str
    note: str | None
    filters: Mapping[str, Any]
    rate: float | None
    all_at_once: bool
    batch: int
    total: int
    sent: int
    done: int
    failed: int
    skipped: int
    waiting: int
    under_way: int
    reason: str | None
    waits_for: str | None
    created_at: datetime
    ended_at: datetime | None
    not_done: Sequence[Mapping[str, Any]] = ()
    """The first of its tasks that failed again, or were skipped."""


class Started(BaseModel):
    """A bulk operation goes on by itself: see ``GET /v1/bulk/{id}``; or what it would be about."""

    dry_run: bool
    total: int
    bulk: uuid.UUID | None = None
    refunds: Sequence[Money] = ()
    """What goes back of what was paid for them, if they are given up."""
    failed: FailedView | None = None
    unmatched: Sequence[str] = ()


class Bulk(Document):
    """What is to be done, and to which."""

    filters: Chosen = Chosen()
    everything: bool = False
    """Every failed task; needed where nothing is filtered by."""
    dry_run: bool = False
    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """So many of them at most, those that have waited for longest."""
    rate: Annotated[float, Field(ge=bulk.LEAST_RATE, le=1e6)] | None = None
    """Tasks a second at most."""
    because: Why | None = None


class Retry(Bulk):
    all_at_once: bool = False
    """Not in batches of 1, 10, 100, …, and not halted if they fail again."""


@router.post(
    "/failed:retry",
    summary="Retry what has failed",
    description="In batches of 1, 10, 100, …, and halted if a task fails again in the same way.",
    response_model=Started,
    responses=SAYS,
)
def retry_failed(
    request: Request, access: Writing, body: Retry, name: IdempotencyKey = None
) -> Any:
    return _bulk(access, request, name, body, BulkKind.RETRY, body.all_at_once)


@router.post(
    "/failed:cancel",
    summary="Give up what has failed",
    description="What was paid for it is credited and refunded. A dry run says how much that is.",
    response_model=Started,
    responses=SAYS,
)
def cancel_failed(
    request: Request, access: Writing, body: Bulk, name: IdempotencyKey = None
) -> Any:
    return _bulk(access, request, name, body, BulkKind.CANCEL, True)


def _bulk(
    access: Access,
    request: Request,
    name: str | None,
    body: Bulk,
    kind: BulkKind,
    all_at_once: bool,
) -> Any:
    filters = body.filters.filters
    if bool(filters) == body.everything:
        message = "either name filters, or say everything"
        problem = Problem(code="field_invalid", path="everything", message=message)
        raise Failed("invalid", message, problems=[problem])
    if body.dry_run:
        with access.doors.write.begin() as tx:
            said = failed_view(tx, filters, min(body.limit or LISTED, LISTED))
            refunds = groups.paid_for(tx, filters) if kind is BulkKind.CANCEL else []
        total = min(said.total, body.limit or said.total)
        return Started(dry_run=True, total=total, refunds=refunds, failed=said)

    def effect(tx: Connection) -> dict[str, Any]:
        try:
            started = bulk.start(
                tx, kind, filters, rate=body.rate, all_at_once=all_at_once, limit=body.limit
            )
        except (UnknownName, lanes.UnknownLane) as error:
            raise unknown(error) from None
        if not started.total:
            raise Failed("conflict", "no failed task fits: nothing was done")
        said = Started(
            dry_run=False, total=started.total, bulk=started.id, unmatched=started.unmatched
        )
        return said.model_dump(mode="json")

    return once(access, request, name, body, effect)


Id = Annotated[uuid.UUID, Path(description="Of the bulk operation.")]


@router.get(
    "/bulk/{id:uuid}",
    summary="A bulk operation and how far it is",
    responses=responses("not_found"),
)
def get_bulk(id: Id, access: Reading) -> BulkView:
    with access.doors.write.begin() as tx:
        return _shown(tx, id)


def _shown(tx: Connection, id: uuid.UUID) -> BulkView:
    try:
        found = bulk.get(tx, id)
    except NoBulkOperation:
        raise not_found() from None
    return _bulk_view(found, bulk.not_done(tx, id))


def _bulk_view(one: BulkOperation, left: Sequence[bulk.BulkTask] = ()) -> BulkView:
    return BulkView(
        **asdict(one),
        waiting=one.waiting,
        under_way=one.under_way,
        not_done=[asdict(task) for task in left],
    )


@router.post(
    "/bulk/{id:uuid}:stop",
    summary="Send no more of a bulk operation",
    description="What was sent goes on; the rest stays failed.",
    response_model=BulkView,
    responses=responses("not_found", "conflict", "invalid", "key_reused"),
)
def stop_bulk(
    id: Id, request: Request, access: Writing, name: IdempotencyKey = None,
    body: Because = NO_REASON,
) -> Any:  # fmt: skip
    def effect(tx: Connection) -> dict[str, Any]:
        _shown(tx, id)
        try:
            return _bulk_view(bulk.stop(tx, id)).model_dump(mode="json")
        except NoBulkOperation as error:
            raise Failed("conflict", str(error)) from None

    return once(access, request, name, body, effect)
