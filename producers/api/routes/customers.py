"""Customers: what is known of them, how they pay, what they agreed to, and what will be charged."""

import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection
from starlette.convertors import PathConvertor, register_url_convertor

from producers.api import commands
from producers.api.access import Access, Document, IdempotencyKey, Route, needs, once
from producers.api.keys import KeyScope
from producers.api.problems import Failed, not_found, responses
from producers.api.routes.services import Done
from producers.views import customers, documents
from producers.views.customers import CustomerView, Upcoming
from producers.views.documents import InvoiceRow
from producers.views.scope import Page, after, cursor_of
from schemas.fields import Country, EmailAddress, Identifier, Language, Text, Token, VatNumber
from schemas.json_bodies import Problem
from schemas.messages import AddressDocument, AgreementDocument, Month, ServiceId


class _CustomerId(PathConvertor):
    """An id, which may have slashes, and not what there is of a customer."""

    regex = r".*(?<!/upcoming)(?<!/invoices)(?<!/payment-method)(?<!/agreements)"


register_url_convertor("customer", _CustomerId())

router = APIRouter(prefix="/v1", route_class=Route, tags=["customers"])

Id = Annotated[
    Identifier, Path(description="Of the customer.", min_length=1, max_length=100, examples=["c-1"])
]
Reading = Annotated[Access, needs(KeyScope.CUSTOMERS_READ)]
Writing = Annotated[Access, needs(KeyScope.CUSTOMERS_WRITE)]


class Part(BaseModel):
    """A part of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: Annotated[str, Field(max_length=64)] | None = None
    """``next`` of the part before."""


@router.get(
    "/customers/{id:customer}",
    summary="What is known of a customer; never a token",
    responses=responses("not_found", "invalid"),
)
def get_customer(id: Id, access: Reading) -> CustomerView:
    with access.doors.read.begin() as tx:
        found = customers.get(tx, id, scope=access.scope)
    if found is None:
        raise not_found()
    return found


@router.get(
    "/customers/{id:path}/upcoming",
    summary="What will be charged, when, and with which tax",
    description="Of each service: what becomes of it at its expiry, and what its renewal costs as"
    " of the day on which it is charged. The tax of a service is rounded alone; an invoice rounds"
    " once for all its lines.",
    responses=responses("not_found", "invalid"),
)
def get_upcoming(id: Id, query: Annotated[Part, Query()], access: Reading) -> Page[Upcoming]:
    doors = access.doors
    with doors.read.begin() as tx:
        if not customers.is_seen(tx, id, access.scope):
            raise not_found()
        return customers.upcoming(
            tx,
            id,
            doors.catalogue(tx),
            doors.clock.now(),
            scope=access.scope,
            limit=query.limit,
            cursor=query.cursor,
        )


@router.get(
    "/customers/{id:path}/invoices",
    summary="A customer's invoices, the newest first",
    responses=responses("not_found", "invalid"),
)
def get_invoices(
    id: Id,
    query: Annotated[Part, Query()],
    access: Annotated[Access, needs(KeyScope.INVOICES_READ)],
) -> Page[InvoiceRow]:
    with access.doors.read.begin() as tx:
        if not customers.is_seen(tx, id, access.scope):
            raise not_found()
        found, last = documents.invoices_of_customer(
            tx, id, scope=access.scope, limit=query.limit, before=after(query.cursor)
        )
    return Page(found, None if last is None else cursor_of(last))


class Whole(Document):
    """All that can be changed of a customer; what is left out is erased."""

    country: Annotated[Country, Field(examples=["FR"])]
    language: Annotated[Language, Field(examples=["fr"])]
    email: Annotated[EmailAddress, Field(examples=["alice@example.com"])]
    vat_number: VatNumber | None = None
    name: Text | None = None
    company: Text | None = None
    address: AddressDocument | None = None


class Changes(Document):
    """What is named changes, and null erases; the rest stays."""

    country: Annotated[Country, Field(examples=["FR"])] = ""
    language: Annotated[Language, Field(examples=["fr"])] = ""
    email: Annotated[EmailAddress, Field(examples=["alice@example.com"])] = ""
    vat_number: VatNumber | None = None
    name: Text | None = None
    company: Text | None = None
    address: AddressDocument | None = None


class Method(Document):
    """A token of a gateway; it is kept for billing alone."""

    payment_method: Annotated[Token, Field(examples=["tok_visa_4242"])]
    payment_method_expires: Annotated[Month, Field(examples=["2029-04"])] | None = None
    payment_gateway: Identifier | None = None
    services: Annotated[list[ServiceId], Field(min_length=1, max_length=1000)] | None = None
    """Those that it pays; all, and it is the saved one, unless said."""


class Agreements(Document):
    """Contracts that the customer accepted."""

    contracts: Annotated[list[AgreementDocument], Field(min_length=1, max_length=100)]


_SAYS = responses("not_found", "conflict", "invalid", "key_reused", "too_large")


def _do(
    access: Access,
    request: Request,
    name: str | None,
    id: str,
    command: str,
    body: Document,
    fields: dict[str, Any],
) -> Any:
    def effect(tx: Connection) -> dict[str, Any] | Failed:
        commands.check_customer(tx, access, id)
        return commands.send(tx, access, command, id, fields)

    return once(access, request, name, body, effect)


@router.put(
    "/customers/{id:customer}",
    summary="Say all that is known of a customer",
    description="A customer is created by their first order; of one that does not exist the"
    " answer is 404.",
    response_model=Done,
    responses=_SAYS,
)
def put_customer(id: Id, request: Request, access: Writing, body: Whole) -> Any:
    return _do(access, request, None, id, "customer", body, body.model_dump())


@router.patch(
    "/customers/{id:customer}",
    summary="Change what is known of a customer",
    response_model=Done,
    responses=_SAYS,
)
def patch_customer(id: Id, request: Request, access: Writing, body: Changes) -> Any:
    fields = body.model_dump(exclude_unset=True)
    if not fields:
        problem = Problem(code="field_missing", path="", message="name what to change")
        raise Failed("invalid", problems=[problem])
    return _do(access, request, None, id, "customer", body, fields)


@router.put(
    "/customers/{id:path}/payment-method",
    summary="Pay with another method from now on",
    description="Unpaid renewals are charged to it at once. A key that is narrowed to brands has"
    " to name `services`.",
    response_model=Done,
    responses=_SAYS,
)
def put_payment_method(id: Id, request: Request, access: Writing, body: Method) -> Any:
    def effect(tx: Connection) -> dict[str, Any] | Failed:
        commands.check_customer(tx, access, id)
        if body.services is not None:
            ids = [uuid.UUID(service) for service in body.services]
            if commands.check_services(tx, access, ids) != id:
                raise not_found()
        elif access.scope.brands is not None or access.scope.subsidiaries is not None:
            message = "the key is narrowed: name the services it is to pay"
            return Failed(
                "invalid",
                problems=[Problem(code="field_missing", path="services", message=message)],
            )
        return commands.send(tx, access, "payment_method", id, body.model_dump(exclude_none=True))

    return once(access, request, None, body, effect)


@router.post(
    "/customers/{id:path}/agreements",
    summary="Record which contracts a customer accepted",
    description="Renewals that waited for it go on.",
    response_model=Done,
    responses=_SAYS,
)
def post_agreements(
    id: Id, request: Request, access: Writing, body: Agreements, name: IdempotencyKey = None
) -> Any:
    def effect(tx: Connection) -> dict[str, Any] | Failed:
        commands.check_customer(tx, access, id)
        brands = access.scope.brands
        if brands is not None:
            plans = access.doors.catalogue(tx).known_plans()
            theirs = {plan.contract for plan in plans if plan.brand in brands}
            problems = [
                Problem(
                    code="contract_unknown",
                    path=f"contracts.{number}",
                    message=f"no contract {agreed.contract!r}",
                )
                for number, agreed in enumerate(body.contracts)
                if agreed.contract not in theirs
            ]
            if problems:
                return Failed("invalid", problems=problems)
        return commands.send(tx, access, "accept", id, body.model_dump())

    return once(access, request, name, body, effect)
