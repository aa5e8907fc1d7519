"""Documents that were not accepted, and those that intake could not even reject."""

import uuid

from sqlalchemy import Connection, text
from starlette.responses import Response

from autorenew.console.context import BadInput, Visit
from autorenew.console.rendering import page
from producers import history, topology
from producers.history import Event
from producers.intake import dead
from producers.management import Management
from schemas.errors import AutorenewError
from schemas.values import derived_id

PER_PAGE = 50

_LIST = text("""
    SELECT id, received_at, upstream, door, key, code, times,
        problems->0->>'path' AS path, problems->0->>'message' AS message,
        jsonb_array_length(problems) AS problems
    FROM rejected_documents
    WHERE (CAST(:upstream AS text) IS NULL OR upstream = :upstream)
      AND (CAST(:key AS text) IS NULL OR key = :key)
      AND (CAST(:code AS text) IS NULL OR code = :code)
    ORDER BY received_at DESC, id LIMIT :limit OFFSET :skip
""")
_ONE = text("""
    SELECT id, received_at, upstream, door, key, code, times, problems, body
    FROM rejected_documents WHERE id = :id
""")


def list_rejected(visit: Visit) -> Response:
    """The newest first."""
    number = visit.query.number("page", 1)
    chosen = {name: visit.query.get(name) for name in ("upstream", "key", "code")}
    parameters = {**chosen, "limit": PER_PAGE + 1, "skip": (number - 1) * PER_PAGE}
    with visit.console.reading() as tx:
        rows = tx.execute(_LIST, parameters).all()
        unknown = None if rows else _unknown(tx, chosen)
    aside, problem = _set_aside(visit)
    return page(
        visit, "rejected.html", unknown=unknown, status=422 if unknown else 200,
        rows=rows[:PER_PAGE], more=len(rows) > PER_PAGE, number=number,
        chosen=chosen, aside=aside, problem=problem, days=visit.console.settings.rejected_days,
        may_put_back=_may_put_back(visit),
    )  # fmt: skip


_IS_UPSTREAM = text("""
    SELECT 1 WHERE EXISTS (SELECT FROM rejected_documents WHERE upstream = :upstream)
        OR EXISTS (SELECT FROM orders WHERE upstream = :upstream)
        OR EXISTS (SELECT FROM customers WHERE realm = :upstream)
""")
_IS_CODE = text("SELECT 1 FROM rejected_documents WHERE code = :code LIMIT 1")


def _unknown(tx: Connection, chosen: dict[str, str | None]) -> str | None:
    """Which filter names what is not known at all."""
    upstream, code = chosen["upstream"], chosen["code"]
    if upstream and tx.execute(_IS_UPSTREAM, {"upstream": upstream}).first() is None:
        return f"nothing ever came from an upstream {upstream!r}"
    if code and tx.execute(_IS_CODE, {"code": code}).first() is None:
        return f"no document was rejected with the problem {code!r}"
    return None


def _set_aside(visit: Visit) -> tuple[int | None, str | None]:
    """How many are on ``intake.dead``; None: there is no broker to ask, or why it did not say."""
    settings = visit.console.settings
    if settings.broker_url is None:
        return None, None
    try:
        return dead.count(settings.need("broker_url")), None
    except AutorenewError as error:
        return None, str(error)


def _may_put_back(visit: Visit) -> bool:
    settings = visit.console.settings
    return settings.broker_url is not None and settings.broker_management_url is not None


def show(visit: Visit) -> Response:
    try:
        id_ = uuid.UUID(visit.path["id"])
    except ValueError:
        raise BadInput("that is no id of a document") from None
    with visit.console.reading() as tx:
        row = tx.execute(_ONE, {"id": id_}).first()
    if row is None:
        raise BadInput("there is no such document any more")
    return page(visit, "rejected_document.html", row=row)


def confirm_put_back(visit: Visit) -> Response:
    aside, problem = _set_aside(visit)
    return page(visit, "confirm_put_back.html", aside=aside, problem=problem)


def put_back(visit: Visit) -> Response:
    settings = visit.console.settings
    if not _may_put_back(visit):
        raise BadInput("AUTORENEW_BROKER_URL and AUTORENEW_BROKER_MANAGEMENT_URL are needed")
    urls = settings.need("broker_url")
    management = Management(settings.need("broker_management_url"), topology.vhost_of(urls))
    moved, left = dead.put_back(urls, management)
    with visit.console.engine.begin() as tx:
        detail = {"documents": moved, "left": left}
        subject = derived_id("queue", topology.DEAD_INTAKE)
        history.record(tx, [Event(subject, "documents.put_back", detail)])
    return page(visit, "put_back.html", moved=moved, left=left)
