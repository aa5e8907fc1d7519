"""For operators: lanes, what is in them and what holds them."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from producers.api.access import Document, IdempotencyKey, Route, once
from producers.api.problems import Failed, not_found, responses
from producers.api.routes.operating import TAG, Name, Reading, Writing
from producers.api.routes.services import Why
from producers.control import breakers, lanes, limits

router = APIRouter(prefix="/v1", route_class=Route, tags=[TAG])


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
    with access.doors.write.begin() as tx:
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
