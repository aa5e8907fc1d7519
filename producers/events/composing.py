"""From what happened to what upstream is told: pure, no I/O."""

import logging
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel

from monitoring import metrics
from producers.events.reading import Facts, Happened
from schemas.events import (
    Amount,
    ChargeFailed,
    CloudEvent,
    ContractAwaited,
    InvoiceIssued,
    Kind,
    OrderCancelled,
    OrderDelivered,
    OrderPartlyDelivered,
    OrderRefused,
    RefusedFor,
    ServiceCancelled,
    ServiceDelivered,
    ServiceModeChanged,
    ServiceRenewed,
    ServiceResumed,
    ServiceStopped,
    ServiceSuspended,
    ServiceTerminated,
    WebhookTest,
    routing_key,
    type_of,
)
from schemas.rules.notices import CONTRACT, Notice
from schemas.values import Period, derived_id

log = logging.getLogger(__name__)

# Of a customer that any upstream may use, and who was never named in an order.
NO_REALM = "_"
# Reasons that upstream is told. An operator's reason is free text, and internal.
_KNOWN_REASONS = ("unpaid", "stopped", "contract_not_accepted")
BY_OPERATOR = "operator"
# A gateway's code; whatever else it said stays in the house.
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

RealmOf = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event as it is sent.

    Attributes:
        history_id: of the history; None: a test of an endpoint.
        id: of the CloudEvent.
    """

    history_id: int | None
    id: uuid.UUID
    kind: Kind
    realm: str
    subject: str
    sequence: int
    body: bytes

    @property
    def routing_key(self) -> str:
        return routing_key(self.realm, self.kind)


@dataclass(frozen=True, slots=True)
class Untold:
    """An event that cannot be composed.

    Attributes:
        event_id: of the history.
        error: the kind of the error that says why.
    """

    event_id: int
    kind: str
    error: str


class Composer:
    """
    Args:
        source: of all events: names this fleet.
        realm_of: the realm of an upstream, for customers that are from before there were any.
    """

    def __init__(self, source: str, realm_of: RealmOf) -> None:
        self._source = source
        self._realm_of = realm_of

    def compose(
        self, happened: Iterable[Happened], facts: Facts
    ) -> tuple[list[Outgoing], list[Untold]]:
        """The events, in their order, and those that cannot be told, by a defect: they must not
        hold up all others, and are to be kept."""
        told, untold = [], []
        for one in happened:
            try:
                told.append(self._event(one, facts))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                log.exception("event %d of the history cannot be told: %s", one.id, one.kind)
                metrics.loop_failures.labels("events", "defect").inc()
                untold.append(Untold(one.id, one.kind, type(error).__name__))
        return told, untold

    def test(self, endpoint: uuid.UUID, realm: str, now: datetime) -> Outgoing:
        """An event that says nothing, for one endpoint."""
        id_ = derived_id("event", endpoint, now.isoformat())
        data = WebhookTest(endpoint=endpoint)
        subject = f"webhook/{endpoint}"
        return self._out(None, id_, Kind.WEBHOOK_TEST, realm, subject, 1, now, data)

    def _event(self, one: Happened, facts: Facts) -> Outgoing:
        facts_of, kind_of_subject, data_of = _COMPOSED[one.kind]
        row = facts_of(facts)[one.subject]
        data = data_of(one, row, facts)
        subject = _subject(kind_of_subject, row, one)
        # With when it happened: a restored database must not give another event the same id.
        id_ = derived_id("event", one.subject, one.sequence, one.kind, one.at.isoformat())
        return self._out(
            one.id, id_, one.kind, self._realm(row), subject, one.sequence, one.at, data
        )

    def _realm(self, row: Any) -> str:
        if row.realm is not None:
            return str(row.realm)
        return self._realm_of(row.upstream) if row.upstream is not None else NO_REALM

    def _out(
        self,
        history_id: int | None,
        id_: uuid.UUID,
        kind: Kind,
        realm: str,
        subject: str,
        sequence: int,
        at: datetime,
        data: BaseModel,
    ) -> Outgoing:
        event = CloudEvent[Any](
            id=id_,
            source=self._source,
            type=type_of(kind),
            subject=subject,
            time=at,
            sequence=str(sequence),
            realm=realm,
            data=data,
        )
        return Outgoing(history_id, id_, kind, realm, subject, sequence, event.encoded())


def _subject(kind: str, row: Any, one: Happened) -> str:
    if kind == "request" and row.order_id == one.subject:
        kind = "order"
    return f"{'payment-request' if kind == 'request' else kind}/{one.subject}"


def _order(row: Any) -> dict[str, Any]:
    return {
        "order": row.id,
        "key": row.key,
        "upstream": row.upstream,
        "customer": row.customer_id,
    }


def _service(row: Any) -> dict[str, Any]:
    return {
        "service": row.id,
        "customer": row.customer_id,
        "plan": row.plan,
        "period": str(Period(row.period_months)),
        "order": row.order_id,
        "key": row.key,
        "line": row.line,
    }


def _delivered(one: Happened, row: Any, facts: Facts) -> BaseModel:
    services = [service.id for service in facts.services_of.get(one.subject, ())]
    return OrderDelivered(**_order(row), services=services)


def _partly_delivered(one: Happened, row: Any, facts: Facts) -> BaseModel:
    services = facts.services_of.get(one.subject, ())
    return OrderPartlyDelivered(
        **_order(row),
        delivered=[service.id for service in services if not service.is_cancelled],
        cancelled=[service.id for service in services if service.is_cancelled],
    )


def _cancelled(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    reason: Any = one.detail.get("reason") or row.reason or "undelivered"
    return OrderCancelled(**_order(row), reason=reason)


def _refused(_one: Happened, row: Any, _facts: Facts) -> BaseModel:
    # Not their messages, which may quote what the document said.
    problems = [RefusedFor(code=p["code"], path=p.get("path") or "") for p in row.problems or ()]
    return OrderRefused(**_order(row), problems=problems)


def _service_delivered(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    until = date.fromisoformat(one.detail["paid_until"])
    return ServiceDelivered(**_service(row), paid_until=until)


def _renewed(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    return ServiceRenewed(
        **_service(row),
        paid_until=date.fromisoformat(one.detail["paid_until"]),
        periods=one.detail["periods"],
        invoice=one.detail.get("invoice"),
    )


def _mode(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    return ServiceModeChanged(**_service(row), mode=one.detail["mode"])


def _why(one: Happened) -> str | None:
    if one.reason is None:
        return None
    return one.reason if one.reason in _KNOWN_REASONS else BY_OPERATOR


def _suspended(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    return ServiceSuspended(**_service(row), reason=_why(one))


def _terminated(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    return ServiceTerminated(**_service(row), reason=_why(one))


def _plain(model: type[BaseModel]) -> Callable[[Happened, Any, Facts], BaseModel]:
    return lambda one, row, facts: model(**_service(row))


def _charge_failed(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    reason = one.detail.get("reason")
    return ChargeFailed(
        payment_request=row.id,
        customer=row.customer_id,
        amount=Amount(amount=row.total, currency=row.currency),
        attempt=one.detail.get("attempt"),
        reason=reason if reason and _CODE.fullmatch(reason) else None,
        order=row.order_id,
        key=row.key,
        services=row.services,
    )


def _invoiced(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    def amount(minor: int) -> Amount:
        return Amount(amount=minor, currency=row.invoiced_in)

    return InvoiceIssued(
        invoice=one.detail["invoice"],
        issued_on=row.issued_on,
        payment_request=row.id,
        customer=row.customer_id,
        net=amount(row.net),
        tax=amount(row.tax),
        total=amount(row.invoiced),
        order=row.order_id,
        key=row.key,
        services=row.services,
    )


def _awaited(one: Happened, row: Any, _facts: Facts) -> BaseModel:
    notices = [Notice.parse(said) for said in one.detail["kinds"]]
    versions = [n.number for n in notices if n.kind is CONTRACT and n.number is not None]
    return ContractAwaited(**_service(row), contract=row.contract, version=max(versions))


def _orders(facts: Facts) -> Any:
    return facts.orders


def _services(facts: Facts) -> Any:
    return facts.services


def _requests(facts: Facts) -> Any:
    return facts.requests


_COMPOSED: dict[Kind, tuple[Callable[[Facts], Any], str, Callable[..., BaseModel]]] = {
    Kind.ORDER_DELIVERED: (_orders, "order", _delivered),
    Kind.ORDER_PARTLY_DELIVERED: (_orders, "order", _partly_delivered),
    Kind.ORDER_CANCELLED: (_orders, "order", _cancelled),
    Kind.ORDER_REFUSED: (_orders, "order", _refused),
    Kind.SERVICE_DELIVERED: (_services, "service", _service_delivered),
    Kind.SERVICE_CANCELLED: (_services, "service", _plain(ServiceCancelled)),
    Kind.SERVICE_RENEWED: (_services, "service", _renewed),
    Kind.SERVICE_STOPPED: (_services, "service", _plain(ServiceStopped)),
    Kind.SERVICE_MODE_CHANGED: (_services, "service", _mode),
    Kind.SERVICE_SUSPENDED: (_services, "service", _suspended),
    Kind.SERVICE_RESUMED: (_services, "service", _plain(ServiceResumed)),
    Kind.SERVICE_TERMINATED: (_services, "service", _terminated),
    Kind.CHARGE_FAILED: (_requests, "request", _charge_failed),
    Kind.INVOICE_ISSUED: (_requests, "request", _invoiced),
    Kind.CONTRACT_AWAITED: (_services, "service", _awaited),
}
