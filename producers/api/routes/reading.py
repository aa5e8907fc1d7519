"""Documents of money, the catalogue and the forecast: what is only read."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict

from monitoring import forecast as forecasting
from monitoring.forecast import By
from producers.api.access import Access, Route, needs
from producers.api.keys import KeyScope
from producers.api.problems import Failed, not_found, responses
from producers.api.routes.services import Name
from producers.views import documents, plans
from producers.views.documents import CreditNoteView, InvoiceView
from producers.views.plans import CatalogueView
from schemas.json_bodies import Problem
from schemas.rules.outlook import Decision
from schemas.values import Money, Universe

router = APIRouter(prefix="/v1", route_class=Route)

Number = Annotated[
    str, Path(description="As it is printed on the document.", examples=["FR-2026-0000042"])
]


@router.get(
    "/invoices/{number}",
    tags=["invoices"],
    summary="An invoice by its number",
    responses=responses("not_found"),
)
def get_invoice(
    number: Number, access: Annotated[Access, needs(KeyScope.INVOICES_READ)]
) -> InvoiceView:
    with access.doors.read.begin() as tx:
        found = documents.invoice(tx, number, scope=access.scope)
    if found is None:
        raise not_found()
    return found


@router.get(
    "/credit-notes/{number}",
    tags=["invoices"],
    summary="A credit note by its number",
    responses=responses("not_found"),
)
def get_credit_note(
    number: Number, access: Annotated[Access, needs(KeyScope.INVOICES_READ)]
) -> CreditNoteView:
    with access.doors.read.begin() as tx:
        found = documents.credit_note(tx, number, scope=access.scope)
    if found is None:
        raise not_found()
    return found


class CatalogueQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    universe: Universe | None = None
    brand: Name | None = None
    subsidiary: Name | None = None


@router.get(
    "/catalogue",
    tags=["catalogue"],
    summary="Plans on sale, with their prices",
    responses=responses("invalid"),
)
def get_catalogue(
    query: Annotated[CatalogueQuery, Query()],
    access: Annotated[Access, needs(KeyScope.CATALOGUE_READ)],
) -> CatalogueView:
    with access.doors.read.begin() as tx:
        held = access.doors.catalogue(tx)
    return plans.catalogue(
        held,
        scope=access.scope,
        universe=query.universe,
        brand=query.brand,
        subsidiary=query.subsidiary,
    )


class ForecastRow(BaseModel):
    """Services that fall due together; without ``start`` they are overdue."""

    start: date | None
    decision: Decision
    services: int
    suspended_by_operator: int
    net: Money


class ForecastView(BaseModel):
    """What falls due from today on, until the first day that is left out."""

    today: date
    until: date
    by: By
    rows: Sequence[ForecastRow]


class ForecastQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    by: By = By.MONTH
    until: date | None = None
    """The first day that is left out; a year from today unless said."""
    universe: Universe | None = None
    brand: Name | None = None


@router.get(
    "/forecast",
    tags=["forecast"],
    summary="What falls due, and what becomes of it",
    responses=responses("invalid"),
)
def get_forecast(
    query: Annotated[ForecastQuery, Query()],
    access: Annotated[Access, needs(KeyScope.FORECAST_READ)],
) -> ForecastView:
    today = access.doors.clock.now().date()
    until = query.until or today + timedelta(days=365)
    if not today < until <= today + timedelta(days=3660):
        message = "must lie after today, and within ten years"
        problem = Problem(code="date_invalid", path="query.until", message=message)
        raise Failed("invalid", problems=[problem])
    with access.doors.read.begin() as tx:
        rows = forecasting.forecast(
            tx, today=today, until=until, by=query.by, universe=query.universe, brand=query.brand
        )
    return ForecastView(
        today=today,
        until=until,
        by=query.by,
        rows=[
            ForecastRow(
                start=row.start,
                decision=row.decision,
                services=row.services,
                suspended_by_operator=row.held,
                net=Money(row.net, row.currency),
            )
            for row in rows
        ],
    )
