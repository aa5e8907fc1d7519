"""Services: lists, one with what is next and why, what its renewal costs, and the one click."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from producers.api import commands
from producers.api.access import Access, Document, IdempotencyKey, Moment, Route, needs, once
from producers.api.keys import KeyScope
from producers.api.problems import Failed, not_found, responses
from producers.views import services
from producers.views.outlooks import QuoteView, quote_now
from producers.views.scope import Page
from producers.views.services import ServiceRow, ServiceView, Wanted
from schemas.errors import DataError
from schemas.json_bodies import Problem
from schemas.messages import AgreementDocument, LocalDate
from schemas.values import RenewalMode, ServiceState, Universe

router = APIRouter(prefix="/v1", route_class=Route, tags=["services"])

# The path takes ids alone (`{id:uuid}`): what is none is answered as what does not exist.
Id = Annotated[
    uuid.UUID,
    Path(description="Of the service.", examples=["7f3c5d0e-6a0b-5e0f-9d1c-3d2b1a0f9e8d"]),
]
Reading = Annotated[Access, needs(KeyScope.SERVICES_READ)]
Writing = Annotated[Access, needs(KeyScope.SERVICES_WRITE)]
Name = Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$")]
"""What a list is filtered by: the database knows no text with a NUL."""


class ServicesQuery(BaseModel):
    """Which services; those that fit all of it."""

    model_config = ConfigDict(extra="forbid")

    customer: Name | None = None
    plan: Name | None = None
    universe: Universe | None = None
    brand: Name | None = None
    subsidiary: Name | None = None
    state: ServiceState | None = None
    mode: RenewalMode | None = None
    expires_from: Moment | None = None
    expires_before: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: Annotated[str, Field(max_length=64)] | None = None
    """``next`` of the part before."""


@router.get(
    "/services",
    summary="A part of the services that fit",
    description="In the order of their ids. A part may have fewer than `limit`, even none, while"
    " `next` is given: so many were looked at. `customer` finds theirs at once.",
    responses=responses("invalid"),
)
def list_services(query: Annotated[ServicesQuery, Query()], access: Reading) -> Page[ServiceRow]:
    wanted = Wanted(**query.model_dump(exclude={"limit", "cursor"}))
    with access.doors.read.begin() as tx:
        return services.list_services(
            tx, wanted, scope=access.scope, limit=query.limit, cursor=query.cursor
        )


@router.get(
    "/services/{id:uuid}",
    summary="A service: what is next and why, what its renewal costs, and what happened",
    responses=responses("not_found"),
)
def get_service(id: Id, access: Reading) -> ServiceView:
    doors = access.doors
    with doors.read.begin() as tx:
        found = services.get(tx, id, doors.catalogue(tx), doors.clock.now(), scope=access.scope)
    if found is None:
        raise not_found()
    return found


@router.get(
    "/services/{id:uuid}/quote",
    summary="What renewing a service now costs",
    responses=responses("not_found", "conflict"),
)
def get_quote(id: Id, access: Reading) -> QuoteView:
    doors = access.doors
    with doors.read.begin() as tx:
        found = services.known(tx, [id], doors.catalogue(tx), scope=access.scope)
        if not found:
            raise not_found()
        if (held := found[0].renewable) is None:
            raise _cannot("service_not_delivered", "the service was not delivered yet")
        if not found[0].is_alive:
            raise _cannot("service_ended", "the service has ended")
        try:
            quote = quote_now(held, found[0].payer, doors.clock.now())
        except DataError as error:
            raise _cannot(error.code, str(error)) from None
    if quote is None:
        raise _cannot("price_gone", "the plan has no price for this period any more")
    return quote


def _cannot(code: str, message: str) -> Failed:
    problem = Problem(code=code, path="id", message=message)
    return Failed("conflict", message, problems=[problem])


class Done(BaseModel):
    """It is done."""

    changed: bool
    """False: it was so already."""


Why = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Because(Document):
    """Why; kept in the history."""

    because: Why | None = None


NO_REASON = Because()


class Renewal(Because):
    """What the customer saw and agreed to."""

    expires_on: Annotated[LocalDate, Field(examples=["2026-12-31"])]
    """The expiry that the customer saw; a service that expires later was renewed already."""
    contracts: Annotated[tuple[AgreementDocument, ...], Field(max_length=100, strict=False)] = ()


class Mode(Because):
    """How a service renews."""

    mode: Literal["automatic", "manual", "stop"]


_SAYS = responses("not_found", "conflict", "invalid", "key_reused", "too_large")


def _do(
    access: Access,
    request: Request,
    name: str | None,
    id: uuid.UUID,
    command: str,
    body: Because,
    **fields: Any,
) -> dict[str, Any]:
    def effect(tx: Any) -> dict[str, Any] | Failed:
        customer = commands.check_services(tx, access, [id])
        return commands.send(tx, access, command, customer, {"services": [str(id)], **fields})

    return once(access, request, name, body, effect)


@router.post(
    "/services/{id:uuid}:stop",
    summary="End a service when the periods paid for it end",
    response_model=Done,
    responses=_SAYS,
)
def stop(
    id: Id,
    request: Request,
    access: Writing,
    name: IdempotencyKey = None,
    body: Because = NO_REASON,
) -> Any:
    return _do(access, request, name, id, "stop", body)


@router.post(
    "/services/{id:uuid}:resume",
    summary="Undo a stop",
    response_model=Done,
    responses=_SAYS,
)
def resume(
    id: Id,
    request: Request,
    access: Writing,
    name: IdempotencyKey = None,
    body: Because = NO_REASON,
) -> Any:
    return _do(access, request, name, id, "resume", body)


@router.post(
    "/services/{id:uuid}:renew",
    summary="Renew a service and charge it now, whatever its mode",
    response_model=Done,
    responses=_SAYS,
)
def renew(
    id: Id, request: Request, access: Writing, body: Renewal, name: IdempotencyKey = None
) -> Any:
    wanted = [{"id": str(id), "expires_on": body.expires_on}]
    contracts = [agreed.model_dump() for agreed in body.contracts]
    return _do(access, request, name, id, "renew", body, services=wanted, contracts=contracts)


@router.post(
    "/services/{id:uuid}:mode",
    summary="Change how a service renews",
    response_model=Done,
    responses=_SAYS,
)
def mode(id: Id, request: Request, access: Writing, body: Mode, name: IdempotencyKey = None) -> Any:
    return _do(access, request, name, id, "mode", body, mode=body.mode)
