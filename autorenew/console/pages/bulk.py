"""Bulk operations: how they go, what was not done, and a stop."""

import uuid

from sqlalchemy import Connection
from starlette.responses import Response

from autorenew.console.context import BadInput, Visit
from autorenew.console.rendering import page
from autorenew.console.routing import see
from producers.control import bulk
from producers.control.selection import describe

PER_PAGE = 50
MOST_LEFT = 50


def list_operations(visit: Visit) -> Response:
    number = visit.query.number("page", 1)
    with visit.console.engine.begin() as tx:
        found, total = bulk.list_operations(tx, limit=PER_PAGE, skip=(number - 1) * PER_PAGE)
    return page(
        visit, "bulk.html", operations=found, total=total, number=number,
        pages=-(-total // PER_PAGE),
    )  # fmt: skip


def show(visit: Visit) -> Response:
    with visit.console.engine.begin() as tx:
        operation = bulk.get(tx, _id(visit))
        left = bulk.not_done(tx, operation.id, limit=MOST_LEFT)
        about = _about(tx, left)
    return page(
        visit, "bulk_operation.html", operation=operation, left=left, about=about, most=MOST_LEFT
    )


def _about(tx: Connection, left: list[bulk.BulkTask]) -> dict[uuid.UUID, object]:
    return {**describe(tx, left)} if left else {}


def confirm_stop(visit: Visit) -> Response:
    with visit.console.engine.begin() as tx:
        operation = bulk.get(tx, _id(visit))
    return page(visit, "confirm_stop.html", operation=operation)


def stop(visit: Visit) -> Response:
    with visit.console.engine.begin() as tx:
        operation = bulk.stop(tx, _id(visit))
    return see(f"/bulk/{operation.id}")


def _id(visit: Visit) -> uuid.UUID:
    try:
        return uuid.UUID(visit.path["id"])
    except ValueError:
        raise BadInput("that is no id of a bulk operation") from None
