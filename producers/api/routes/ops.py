"""For operators: what has failed and what is done about it in bulk, lanes, and the audit."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, text

from producers.api.access import Access, Document, IdempotencyKey, Moment, Route, needs, once
from producers.api.keys import KeyScope
from producers.api.problems import Failed, not_found, responses
from producers.api.routes.services import NO_REASON, Because, Why
from producers.control import breakers, bulk, editing, groups, lanes, limits
from producers.control import failed as failures
from producers.control.bulk import BulkOperation, NoBulkOperation
from producers.control.naming import UnknownName
from producers.control.selection import Filters
from producers.steps import CONVERGE
from schemas.errors import AutorenewError
from schemas.json_bodies import Problem
from schemas.values import BulkKind, Money

router = APIRouter(prefix="/v1", route_class=Route, tags=["operations"])

Reading = Annotated[Access, needs(KeyScope.OPS_READ)]
Writing = Annotated[Access, needs(KeyScope.OPS_WRITE)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
LISTED = 20
EDITED_AT_ONCE = 200


class Chosen(BaseModel):
    """Which failed tasks; those that fit all of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    names: Annotated[tuple[Name, ...], Field(max_length=100, strict=False)] = ()
    """Ids of subjects; or ``order:KEY``, ``service:ID``, ``customer:ID``, ``domain:NAME``."""
    queue: Name | None = None
    step: Name | None = None
    lane: Name | None = None
    driver: Name | None = None
    universe: Name | None = None
    reason: Name | None = None
    """Ours, or the far side's own code."""
    plan: Name | None = None
    customer: Name | None = None
    order: Name | None = None
    service: Name | None = None
    upstream: Name | None = None
    """Needed where several upstreams use the same key of an order."""
    older_than_seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    since: Moment | None = None

    @property
    def filters(self) -> Filters:
        given = self.model_dump(include=set(Chosen.model_fields) - {"older_than_seconds"})
        age = self.older_than_seconds
        return Filters(
            **given,
            older_than=None if age is None else timedelta(seconds=age),
        )


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


_SAYS = responses("invalid", "conflict", "key_reused", "too_large")


@router.get("/failed", summary="What waits for a person", responses=responses("invalid"))
def get_failed(query: Annotated[FailedQuery, Query()], access: Reading) -> FailedView:
    with access.doors.write.connect() as tx:
        return _failed(tx, query.filters, query.limit, (query.page - 1) * query.limit)


def _failed(tx: Connection, filters: Filters, limit: int, skip: int = 0) -> FailedView:
    try:
        found = groups.groups(tx, filters)
        selection = failures.select(tx, filters, limit=limit, skip=skip)
    except (UnknownName, lanes.UnknownLane) as error:
        raise _unknown(error) from None
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


def _unknown(error: AutorenewError) -> Failed:
    lines = str(error).splitlines()
    problems = [Problem(code=error.code, path="filters", message=line) for line in lines]
    return Failed("invalid", lines[0], problems=problems)


@router.post(
    "/failed:retry",
    summary="Retry what has failed",
    description="In batches of 1, 10, 100, …, and halted if a task fails again in the same way.",
    response_model=Started,
    responses=_SAYS,
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
    responses=_SAYS,
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
        with access.doors.write.connect() as tx:
            said = _failed(tx, filters, min(body.limit or LISTED, LISTED))
            refunds = groups.paid_for(tx, filters) if kind is BulkKind.CANCEL else []
        total = min(said.total, body.limit or said.total)
        return Started(dry_run=True, total=total, refunds=refunds, failed=said)

    def effect(tx: Connection) -> dict[str, Any]:
        try:
            started = bulk.start(
                tx, kind, filters, rate=body.rate, all_at_once=all_at_once, limit=body.limit
            )
        except (UnknownName, lanes.UnknownLane) as error:
            raise _unknown(error) from None
        if not started.total:
            raise Failed("conflict", "no failed task fits: nothing was done")
        said = Started(
            dry_run=False, total=started.total, bulk=started.id, unmatched=started.unmatched
        )
        return said.model_dump(mode="json")

    return once(access, request, name, body, effect)


@router.post(
    "/failed:edit",
    summary="Correct configurations that the far side refused, and try their services again",
    description=f"Each is checked as that of an order is, and corrected by itself; at most"
    f" {EDITED_AT_ONCE} at once. A dry run says what would become of each.",
    response_model=EditedView,
    responses=_SAYS,
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
            raise _unknown(error) from None
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


Id = Annotated[uuid.UUID, Path(description="Of the bulk operation.")]


@router.get(
    "/bulk/{id:uuid}",
    summary="A bulk operation and how far it is",
    responses=responses("not_found"),
)
def get_bulk(id: Id, access: Reading) -> BulkView:
    with access.doors.write.connect() as tx:
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


class PauseView(BaseModel):
    """Why a lane is paused."""

    id: int
    source: str
    paused_by: str
    reason: str
    paused_at: datetime


class OpenView(BaseModel):
    """Why a lane is open: its far side fails. It closes by itself."""

    cause: str
    reason: str
    opened_at: datetime
    probes: int
    probe_at: datetime


class LimitView(BaseModel):
    """What a lane may ask of its far side."""

    at_once: int | None
    per_second: float | None
    burst: int | None


class LaneView(BaseModel):
    """A lane on one queue, and how many tasks it has in each state."""

    lane: str
    queue: str
    ready: int
    later: int
    leased: int
    failed: int
    pauses: Sequence[PauseView]
    open: OpenView | None
    limit: LimitView | None


class LanesView(BaseModel):
    lanes: Sequence[LaneView]


class LaneAction(Document):
    """Start no more in a lane, or go on.

    ``resume`` ends the only pause of an operator; or those that are named.
    """

    lane: Name
    action: Literal["pause", "resume"]
    because: Why
    pauses: Annotated[tuple[int, ...], Field(max_length=100, strict=False)] = ()
    """Of ``resume``: the ids of the pauses that end."""


@router.get("/lanes", summary="Lanes, what is in them, and what holds them", responses=responses())
def get_lanes(access: Reading) -> LanesView:
    with access.doors.write.connect() as tx:
        return _lanes(tx)


def _lanes(tx: Connection, lane: str | None = None) -> LanesView:
    opened = {one.lane: one for one in breakers.open_lanes(tx)}
    limited = limits.limits(tx)
    return LanesView(
        lanes=[
            LaneView(
                lane=one.lane, queue=one.queue, ready=one.ready, later=one.later,
                leased=one.leased, failed=one.failed,
                pauses=[PauseView.model_validate(_without_lane(p)) for p in one.pauses],
                open=OpenView.model_validate(_without_lane(opened[one.lane]))
                if one.lane in opened else None,
                limit=LimitView.model_validate(asdict(limited[one.lane]))
                if one.lane in limited else None,
            )
            for one in lanes.list_lanes(tx)
            if lane in (None, one.lane)
        ]
    )  # fmt: skip


def _without_lane(one: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name != "lane"}


@router.post(
    "/lanes",
    summary="Pause or resume a lane",
    description="Also of what the guard has paused, if its pause is named.",
    response_model=LanesView,
    responses=responses("not_found", "conflict", "invalid", "key_reused", "too_large"),
)
def post_lane(
    request: Request, access: Writing, body: LaneAction, name: IdempotencyKey = None
) -> Any:
    def effect(tx: Connection) -> dict[str, Any]:
        try:
            if body.action == "pause":
                lanes.pause(tx, body.lane, body.because)
            else:
                lanes.resume(tx, body.lane, numbers=body.pauses)
        except lanes.UnknownLane:
            raise not_found() from None
        except lanes.CannotResume as error:
            raise Failed("conflict", str(error)) from None
        return _lanes(tx, body.lane).model_dump(mode="json")

    return once(access, request, name, body, effect)


class FindingView(BaseModel):
    """What one invariant was found to be."""

    invariant: str
    must: str
    checked_at: datetime | None
    seconds: float
    violations: int
    offenders: Sequence[Any]
    problem: str | None
    """Why it could not be checked."""


class AuditView(BaseModel):
    """The last audit over all of the books that came to its end."""

    started_at: datetime
    ended_at: datetime
    seconds: float
    checks: int
    violations: int
    findings: Sequence[FindingView]
    """The newest verdict of each invariant that is broken, or could not be checked."""


# The exporter keeps them; without one there is no audit to tell of.
_IS_KEPT = text("SELECT to_regclass('audit_runs') IS NOT NULL")
_LAST_RUN = text("""
    SELECT started_at, ended_at, seconds, checks, violations FROM audit_runs
    WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 1
""")
_FINDINGS = text("""
    SELECT invariant, must, checked_at, seconds, violations, offenders, problem
    FROM audit_findings WHERE violations > 0 OR problem IS NOT NULL ORDER BY invariant
""")


@router.get(
    "/audit",
    summary="The last verdict of the audit",
    description="404 while no audit has come to its end: an exporter does them.",
    responses=responses("not_found"),
)
def get_audit(access: Reading) -> AuditView:
    with access.doors.read.connect() as tx:
        run = None
        if tx.execute(_IS_KEPT).scalar_one():
            run = tx.execute(_LAST_RUN).first()
        if run is None:
            raise not_found("no audit has come to its end yet: an exporter does them, in hours")
        findings = [FindingView.model_validate(row._asdict()) for row in tx.execute(_FINDINGS)]
    return AuditView(**run._mapping, findings=findings)
