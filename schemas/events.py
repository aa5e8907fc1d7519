"""What upstream is told of: the kinds of event, and what each says. CloudEvents 1.0, as JSON.

An event holds ids, amounts with their currency, dates and codes: no secret, no payment token and
nothing of a customer but their id. Consumers ignore fields that they do not know: a new one makes
no new version.
"""

import uuid
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

EXCHANGE = "events"
"""The topic exchange they are published to; see :func:`routing_key`."""

CONTENT_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "autorenew."


class Kind(StrEnum):
    """What happened. The type of its CloudEvent is ``autorenew.`` and the kind."""

    ORDER_DELIVERED = "order.delivered"
    ORDER_PARTLY_DELIVERED = "order.partly_delivered"
    ORDER_CANCELLED = "order.cancelled"
    ORDER_REFUSED = "order.refused"
    SERVICE_DELIVERED = "service.delivered"
    SERVICE_CANCELLED = "service.cancelled"
    SERVICE_RENEWED = "service.renewed"
    SERVICE_STOPPED = "service.stopped"
    SERVICE_MODE_CHANGED = "service.mode_changed"
    SERVICE_SUSPENDED = "service.suspended"
    SERVICE_RESUMED = "service.resumed"
    SERVICE_TERMINATED = "service.terminated"
    CHARGE_FAILED = "charge.failed"
    INVOICE_ISSUED = "invoice.issued"
    CONTRACT_AWAITED = "contract.awaited"
    WEBHOOK_TEST = "webhook.test"


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Amount(_Data):
    """Minor units, such as cents."""

    amount: Annotated[int, Field(examples=[4544])]
    currency: Annotated[str, Field(examples=["EUR"])]


class RefusedFor(_Data):
    """Why an order was refused."""

    code: Annotated[str, Field(examples=["plan_unknown"])]
    path: Annotated[str, Field(description="of the field", examples=["lines.0.plan"])]


_Key = Annotated[str, Field(description="the order's, as upstream chose it", examples=["o-17"])]
_Customer = Annotated[str, Field(description="the customer's id", examples=["customer-1"])]
_Until = Annotated[
    date, Field(description="the subsidiary's local day on which it expires, at its beginning")
]
_Reason = Annotated[str, Field(description="a code", examples=["unpaid"])]


class _Order(_Data):
    order: uuid.UUID
    key: _Key
    upstream: Annotated[str, Field(description="that placed it", examples=["upstream-shop"])]
    customer: _Customer | None = None


class OrderDelivered(_Order):
    """All services of an order are there."""

    services: list[uuid.UUID]


class OrderPartlyDelivered(_Order):
    """Some services of an order are there, the others were given up; their money goes back."""

    delivered: list[uuid.UUID]
    cancelled: list[uuid.UUID]


class OrderCancelled(_Order):
    """An order came to nothing; whatever was paid goes back."""

    reason: Annotated[
        Literal["payment_declined", "given_up", "undelivered"],
        Field(description="undelivered: no service of it could be delivered"),
    ]


class OrderRefused(_Order):
    """An order was not accepted."""

    problems: list[RefusedFor]


class _Service(_Data):
    service: uuid.UUID
    customer: _Customer
    plan: Annotated[str, Field(examples=["web-start"])]
    period: Annotated[str, Field(description="ISO 8601", examples=["P1M"])]
    order: Annotated[uuid.UUID | None, Field(description="null: imported")] = None
    key: _Key | None = None
    line: Annotated[int | None, Field(description="of the order; the first is 1")] = None


class ServiceDelivered(_Service):
    """A service is there."""

    paid_until: _Until


class ServiceCancelled(_Service):
    """A service was given up before it was delivered; its money goes back."""


class ServiceRenewed(_Service):
    """A renewal was paid."""

    paid_until: _Until
    periods: Annotated[int, Field(description="paid for", examples=[1])]
    invoice: Annotated[str | None, Field(description="null: it cost nothing")] = None


class ServiceStopped(_Service):
    """It is not renewed any more, and ends when it expires."""


class ServiceModeChanged(_Service):
    """How it is renewed was changed; if it had been stopped, it goes on."""

    mode: Literal["automatic", "manual"]


class ServiceSuspended(_Service):
    """It was switched off; its data is kept."""

    reason: _Reason | None = None


class ServiceResumed(_Service):
    """It was suspended, and runs again."""


class ServiceTerminated(_Service):
    """It is gone."""

    reason: _Reason | None = None


class ChargeFailed(_Data):
    """A charge was declined. An order is charged again, or cancelled: that is told, too."""

    payment_request: uuid.UUID
    customer: _Customer
    amount: Amount
    attempt: Annotated[int | None, Field(description="null: an operator gave it up")] = None
    reason: Annotated[str | None, Field(description="the gateway's code")] = None
    order: Annotated[uuid.UUID | None, Field(description="null: of renewals")] = None
    key: _Key | None = None
    services: Annotated[list[uuid.UUID], Field(description="that it was to pay")]


class InvoiceIssued(_Data):
    """Money was taken, and its invoice is issued."""

    invoice: Annotated[str, Field(examples=["FR-2026-000001"])]
    issued_on: Annotated[date, Field(description="the subsidiary's local day")]
    payment_request: uuid.UUID
    customer: _Customer
    net: Amount
    tax: Amount
    total: Amount
    order: Annotated[uuid.UUID | None, Field(description="null: of renewals")] = None
    key: _Key | None = None
    services: list[uuid.UUID]


class ContractAwaited(_Service):
    """Its customer was asked to accept a version of its contract; without that it ends."""

    contract: Annotated[str | None, Field(examples=["terms"])]
    version: Annotated[int, Field(examples=[3])]


class WebhookTest(_Data):
    """Sent to one endpoint, because somebody asked for it."""

    endpoint: uuid.UUID


DATA: dict[Kind, type[BaseModel]] = {
    Kind.ORDER_DELIVERED: OrderDelivered,
    Kind.ORDER_PARTLY_DELIVERED: OrderPartlyDelivered,
    Kind.ORDER_CANCELLED: OrderCancelled,
    Kind.ORDER_REFUSED: OrderRefused,
    Kind.SERVICE_DELIVERED: ServiceDelivered,
    Kind.SERVICE_CANCELLED: ServiceCancelled,
    Kind.SERVICE_RENEWED: ServiceRenewed,
    Kind.SERVICE_STOPPED: ServiceStopped,
    Kind.SERVICE_MODE_CHANGED: ServiceModeChanged,
    Kind.SERVICE_SUSPENDED: ServiceSuspended,
    Kind.SERVICE_RESUMED: ServiceResumed,
    Kind.SERVICE_TERMINATED: ServiceTerminated,
    Kind.CHARGE_FAILED: ChargeFailed,
    Kind.INVOICE_ISSUED: InvoiceIssued,
    Kind.CONTRACT_AWAITED: ContractAwaited,
    Kind.WEBHOOK_TEST: WebhookTest,
}
"""What the ``data`` of each kind is."""

# Names of the history of which some go out: its index holds these alone, so they never change in
# an index that exists. As what each goes out, the function event_kind of the database says.
HISTORY_NAMES = (
    "order.delivered", "order.partly_delivered", "order.cancelled", "order.refused", "order.paid",
    "charge.declined", "invoice.issued", "service.delivered", "service.cancelled",
    "service.renewed", "service.suspended", "service.resumed", "service.terminated",
    "mode.changed", "notice.sent", "notice.refused",
)  # fmt: skip
IS_OUTGOING = f"name IN ({', '.join(repr(name) for name in HISTORY_NAMES)})"

D = TypeVar("D")


class CloudEvent(BaseModel, Generic[D]):
    """The JSON format of CloudEvents 1.0, with the extension ``sequence`` and one of ours."""

    model_config = ConfigDict(frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[uuid.UUID, Field(description="the same whenever this event is sent again")]
    source: Annotated[str, Field(examples=["/autorenew"])]
    type: Annotated[str, Field(examples=["autorenew.order.delivered"])]
    subject: Annotated[
        str,
        Field(
            description="order/ID, service/ID, payment-request/ID or webhook/ID",
            examples=["order/6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"],
        ),
    ]
    time: Annotated[datetime, Field(description="when it happened")]
    datacontenttype: Literal["application/json"] = "application/json"
    sequence: Annotated[
        str,
        Field(description="of its subject: from 1, without gaps", examples=["1"]),
    ]
    sequencetype: Literal["Integer"] = "Integer"
    realm: Annotated[str, Field(description="whose it is", examples=["upstream-shop"])]
    data: D

    def encoded(self) -> bytes:
        """As JSON, in UTF-8."""
        return self.model_dump_json().encode()


def envelope(kind: Kind) -> Any:
    """The model of the whole event of a kind, for schemas and documents."""
    return CloudEvent.__class_getitem__(DATA[kind])


def type_of(kind: Kind) -> str:
    return f"{TYPE_PREFIX}{kind}"


def realm_word(realm: str) -> str:
    """A realm as the first word of a routing key: what is not a letter, a digit, ``-`` or ``_``
    is percent-encoded, since a dot would begin another word.

    >>> realm_word("upstream-shop.fr")
    'upstream-shop%2Efr'
    """
    return quote(realm, safe="").replace(".", "%2E").replace("~", "%7E") or "%"


def routing_key(realm: str, kind: Kind) -> str:
    """
    >>> routing_key("upstream-shop", Kind.ORDER_DELIVERED)
    'upstream-shop.order.delivered'
    """
    return f"{realm_word(realm)}.{kind}"
