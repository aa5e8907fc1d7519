"""For operators: what has failed, and how configurations are corrected."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from producers.api.access import Document, IdempotencyKey, Route, once
from producers.api.problems import Failed, responses
from producers.api.routes.operating import TAG, Chosen, Name, Reading, Writing, unknown
from producers.api.routes.services import Why
from producers.control import editing, groups, lanes
from producers.control import failed as failures
from producers.control.naming import UnknownName
from producers.control.selection import Filters
from producers.steps import CONVERGE
from schemas.json_bodies import Problem

router = APIRouter(prefix="/v1", route_class=Route, tags=[TAG])

EDITED_AT_ONCE = 200
SAYS = responses("invalid", "conflict", "key_reused", "too_large")


class FailedQuery(Chosen):
    model_config = ConfigDict(strict=False)

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    page: Annotated[int, Field(ge=1, le=100_000)] = 1


class FailedItem(BaseModel):
    """A task that waits for a person."""

    step: str
    subject: uuid.UUID
    queue: str
    lane: str
    kind: str | None
    customer: str | None
    order: str | None
    services: Sequence[uuid.UUID]
    plan: str | None
    reason: str | None
    code: str | None
    error: str | None
    attempts: int
    total_attempts: int
    first_failed_at: datetime | None
    since: datetime | None
    possible: Sequence[str]
    """What a person can do about it."""


class FailedGroup(BaseModel):
    """Failed tasks of one fingerprint."""

    step: str
    lane: str
    driver: str | None
    reason: str | None
    code: str | None
    tasks: int
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime


class FailedView(BaseModel):
    """What has failed: in groups, the largest first, and a part of the items."""

    total: int
    groups: Sequence[FailedGroup]
    items: Sequence[FailedItem]
    unmatched: Sequence[str] = ()
    """Names that are known and have no failed task."""


class Edit(Document):
    """How configurations that the far side refused are corrected."""

    filters: Chosen
    changes: Annotated[dict[Name, Name | None], Field(min_length=1, max_length=50)]
    """Option -> its value; null: without it."""
    dry_run: bool = False
    because: Why


class EditedItem(BaseModel):
    subject: uuid.UUID
    before: Mapping[str, str] | None = None
    after: Mapping[str, str] | None = None
    problem: str | None = None
    """Why this one cannot be corrected so."""


class EditedView(BaseModel):
    """What was corrected, and is tried again."""

    dry_run: bool
    edited: int
    items: Sequence[EditedItem]


@router.get("/failed", summary="What waits for a person", responses=responses("invalid"))
def get_failed(query: Annotated[FailedQuery, Query()], access: Reading) -> FailedView:
    with access.doors.write.begin() as tx:
        return failed_view(tx, query.filters, query.limit, (query.page - 1) * query.limit)


def failed_view(tx: Connection, filters: Filters, limit: int, skip: int = 0) -> FailedView:
    """What fits, and a part of it."""
    try:
        found = groups.groups(tx, filters)
        selection = failures.select(tx, filters, limit=limit, skip=skip)
    except (UnknownName, lanes.UnknownLane) as error:
        raise unknown(error) from None
    listed = failures.with_actions(tx, selection.tasks)
    return FailedView(
        total=selection.total,
        groups=[
            FailedGroup(
                step=g.name, lane=g.lane, driver=g.driver, reason=g.reason, code=g.code,
                tasks=g.tasks, attempts=g.attempts, first_failed_at=g.first, last_failed_at=g.last,
            )
            for g in found
        ],
        items=[_item(one) for one in listed],
        unmatched=selection.unmatched,
    )  # fmt: skip


def _item(one: failures.FailedTask) -> FailedItem:
    task, about = one.task, one.about
    return FailedItem(
        step=task.name, subject=task.subject, queue=task.queue, lane=task.lane, kind=about.kind,
        customer=about.customer, order=about.order_key, services=about.services, plan=one.plan,
        reason=task.reason, code=task.code, error=task.error, attempts=task.attempts,
        total_attempts=task.total_attempts, first_failed_at=task.first_failed_at,
        since=task.since, possible=one.actions,
    )  # fmt: skip


@router.post(
    "/failed:edit",
    summary="Correct configurations that the far side refused, and try their services again",
    description=f"Each is checked as that of an order is, and corrected by itself; at most"
    f" {EDITED_AT_ONCE} at once. A dry run says what would become of each.",
    response_model=EditedView,
    responses=SAYS,
)
def edit_failed(request: Request, access: Writing, body: Edit, name: IdempotencyKey = None) -> Any:
    filters = body.filters.filters
    if not filters:
        problem = Problem(code="field_missing", path="filters", message="name filters")
        raise Failed("invalid", problems=[problem])

    def effect(tx: Connection) -> dict[str, Any]:
        try:
            found = failures.select(tx, filters, limit=EDITED_AT_ONCE + 1)
        except (UnknownName, lanes.UnknownLane) as error:
            raise unknown(error) from None
        subjects = [task.subject for task in found.tasks if task.name == CONVERGE]
        if len(found.tasks) > EDITED_AT_ONCE:
            raise Failed("conflict", f"more than {EDITED_AT_ONCE} fit: filter by more")
        if not subjects:
            raise Failed("conflict", "no service that waits for its delivery fits")
        catalogue = access.doors.catalogue(tx)
        items = []
        for subject in sorted(subjects):
            try:
                with tx.begin_nested() as savepoint:
                    edited = editing.edit(tx, subject, body.changes, catalogue)
                    if body.dry_run:
                        savepoint.rollback()
            except editing.CannotEdit as error:
                items.append(EditedItem(subject=subject, problem=str(error)))
            else:
                items.append(EditedItem(subject=subject, before=edited.before, after=edited.after))
        count = sum(item.problem is None for item in items)
        return EditedView(dry_run=body.dry_run, edited=count, items=items).model_dump(mode="json")

    return once(access, request, None if body.dry_run else name, body, effect)
