"""Orders, services, customers, invoices: searched by what people know them by, and shown."""

import uuid
from urllib.parse import quote

from sqlalchemy import Connection
from starlette.responses import Response

from autorenew.console.context import BadInput, Visit
from autorenew.console.pages import emails
from autorenew.console.rendering import page
from autorenew.console.routing import see
from producers.control import failed as failures
from producers.control.failed import FailedTask
from producers.control.selection import Filters
from producers.views import customers, documents, orders, search, services
from producers.views.services import Wanted
from schemas.errors import AutorenewError
from workers.provisioning.outlook import outlook

PATHS = {
    "order": "/orders/", "service": "/services/", "customer": "/customers/",
    "invoice": "/invoices/", "credit_note": "/credit-notes/",
}  # fmt: skip
_KINDS = ("order", "service", "customer", "domain")
PER_PAGE = 50


class NotThere(AutorenewError):
    """There is nothing of that name."""

    code = "not_there"


def find(visit: Visit) -> Response:
    """What is called so; if that is one thing alone, its page."""
    wanted = visit.query.get("q")
    if wanted is None:
        return page(visit, "find.html", wanted="", hits=[], paths=PATHS)
    kind, colon, rest = wanted.partition(":")
    with visit.console.reading() as tx:
        hits = search.search(tx, rest if colon and kind in _KINDS else wanted)
    if colon and kind in _KINDS:
        hits = [hit for hit in hits if hit.kind == ("service" if kind == "domain" else kind)]
    if len(hits) == 1:
        return see(f"{PATHS[hits[0].kind]}{quote(hits[0].name, safe='')}")
    return page(visit, "find.html", wanted=wanted, hits=hits, paths=PATHS)


def _id(visit: Visit, what: str) -> uuid.UUID:
    try:
        return uuid.UUID(visit.path["id"])
    except ValueError:
        raise BadInput(f"that is no id of {what}") from None


def show_order(visit: Visit) -> Response:
    id_ = _id(visit, "an order")
    with visit.console.reading() as tx:
        order = orders.get(tx, id_)
        if order is None:
            raise NotThere(f"there is no order {id_}")
        waiting = _failed_of(tx, f"order:{id_}")
        sent = emails.of_order(tx, id_)
    return page(visit, "order.html", order=order, failed=waiting, emails=sent)


def _failed_of(tx: Connection, name: str) -> list[FailedTask]:
    """What of it waits for a person."""
    return failures.list_failed(tx, Filters(names=(name,)), limit=PER_PAGE)


def show_service(visit: Visit) -> Response:
    id_, console = _id(visit, "a service"), visit.console
    with console.reading() as tx:
        catalogue = console.catalogue.current(tx)
        service = services.get(tx, id_, catalogue, visit.now)
        if service is None:
            raise NotThere(f"there is no service {id_}")
        seen = outlook(tx, id_, catalogue, visit.now)
        waiting = _failed_of(tx, f"service:{id_}")
        sent = emails.of_service(tx, id_)
    return page(visit, "service.html", service=service, outlook=seen, failed=waiting, emails=sent)


def show_customer(visit: Visit) -> Response:
    id_ = visit.path["id"]
    with visit.console.reading() as tx:
        customer = customers.get(tx, id_)
        if customer is None:
            raise NotThere(f"there is no customer {id_!r}")
        rented = services.list_services(
            tx, Wanted(customer=id_), limit=PER_PAGE, cursor=visit.query.get("after")
        )
        ordered = orders.list_of_customer(tx, id_, limit=PER_PAGE)
        invoices, more_invoices = documents.invoices_of_customer(tx, id_, limit=PER_PAGE)
        sent = customers.emails(tx, id_, limit=PER_PAGE)
        kept = emails.kept(tx, (email.id for email in sent))
        waiting = _failed_of(tx, f"customer:{id_}")
    return page(
        visit, "customer.html", customer=customer, services=rented, orders=ordered,
        invoices=invoices, more_invoices=more_invoices, emails=sent, failed=waiting,
        kept=kept,
    )  # fmt: skip


def show_invoice(visit: Visit) -> Response:
    number = visit.path["number"]
    with visit.console.reading() as tx:
        invoice = documents.invoice(tx, number)
    if invoice is None:
        raise NotThere(f"there is no invoice {number!r}")
    return page(visit, "document.html", kind="Invoice", document=invoice)


def show_credit_note(visit: Visit) -> Response:
    number = visit.path["number"]
    with visit.console.reading() as tx:
        note = documents.credit_note(tx, number)
    if note is None:
        raise NotThere(f"there is no credit note {number!r}")
    return page(visit, "document.html", kind="Credit note", document=note)
