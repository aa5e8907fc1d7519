"""Money: what is asked, what was taken, and what the law knows of it."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.sql import func

from schemas.tables.base import CHANGING, OF_A_DAY, metadata, moment, own_payment_method, state
from schemas.values import ChargeState, RequestState


def _amounts() -> tuple[Column[int], ...]:
    """Net, tax and their sum, in minor units."""
    return tuple(Column(name, BigInteger, nullable=False) for name in ("net", "tax", "total"))


def _party() -> tuple[Column[str], ...]:
    """Who sells to whom, as it was on that day."""
    return (
        Column("customer_id", Text, nullable=False),
        Column("subsidiary", Text, nullable=False),
        Column("country", Text, nullable=False),
        Column("vat_number", Text),
        Column("currency", Text, nullable=False),
        Column("tax_mention", Text, nullable=False),
    )


def _line() -> tuple[Column[object], ...]:
    return (
        Column("service_id", Uuid, nullable=False),
        # 0 is the setup fee, n the n-th period of the service.
        Column("period_number", Integer, nullable=False),
        Column("description", Text, nullable=False),
        Column("net", BigInteger, nullable=False),
        Column("tax_rate", Numeric(5, 2), nullable=False),
        Column("tax", BigInteger, nullable=False),
    )


payment_requests = Table(
    "payment_requests",
    metadata,
    Column("id", Uuid, primary_key=True),
    # None: it is a renewal.
    Column("order_id", Uuid, ForeignKey("orders.id"), unique=True),
    # None: there is no method, and no charge can succeed.
    Column("payment_method_id", Uuid),
    *_party(),
    *_amounts(),
    state("state", RequestState, server_default=RequestState.OPEN),
    moment("created_at", nullable=False, server_default=func.now()),
    moment("closed_at"),
    # Of an order: when its tax may be another one; NULL: no such day is known.
    moment("stands_until"),
    # A renewal's: a person gave up the charge that has failed; it counts as declined once none of
    # its attempts may have taken money.
    moment("given_up_at"),
    own_payment_method(),
    **CHANGING,
)

request_lines = Table(
    "request_lines",
    metadata,
    Column("request_id", Uuid, ForeignKey("payment_requests.id"), nullable=False),
    Column("number", SmallInteger, nullable=False),
    *_line(),
    # Set when the request is voided or split: the period may then be asked for again.
    moment("released_at"),
    # Set when it was paid for and cannot be given any more: the money goes back.
    moment("refused_at"),
    PrimaryKeyConstraint("request_id", "number"),
    # A period of a service is asked for once, whoever asks.
    Index(
        "request_lines_period",
        "service_id",
        "period_number",
        unique=True,
        postgresql_where="released_at IS NULL",
    ),
)

charges = Table(
    "charges",
    metadata,
    Column("key", Uuid, primary_key=True),
    Column("request_id", Uuid, ForeignKey("payment_requests.id"), nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    # As it was then: what is in doubt is asked for again in the same words.
    Column("payment_method_id", Uuid),
    state("state", ChargeState),
    Column("reference", Text),
    Column("reason", Text),
    moment("started_at", nullable=False, server_default=func.now()),
    moment("decided_at"),
    UniqueConstraint("request_id", "attempt"),
    Index("charges_succeeded", "request_id", unique=True, postgresql_where="state = 'succeeded'"),
    Index("charges_unknown", "started_at", postgresql_where="state = 'unknown'"),
    # Written about in the order in which they come: a day is found by blocks.
    Index("charges_decided_at", "decided_at", **OF_A_DAY),
    **CHANGING,
)

# One row per series; locked last, in order, by whoever numbers a batch.
invoice_series = Table(
    "invoice_series",
    metadata,
    Column("code", Text, primary_key=True),
    Column("last_number", BigInteger, nullable=False),
    Column("last_date", Date, nullable=False),
    # That of its last document.
    Column("last_hash", LargeBinary),
)

invoices = Table(
    "invoices",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("series", Text, ForeignKey("invoice_series.code"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("issued_on", Date, nullable=False),
    Column("request_id", Uuid, ForeignKey("payment_requests.id"), nullable=False, unique=True),
    *_party(),
    *_amounts(),
    UniqueConstraint("series", "number"),
    Index("invoices_customer", "customer_id", "issued_on", "id"),
    Index("invoices_issued_on", "issued_on", **OF_A_DAY),
    # Over itself, its lines and the hash of the document before it in its series.
    Column("hash", LargeBinary),
)

invoice_lines = Table(
    "invoice_lines",
    metadata,
    Column("invoice_id", Uuid, ForeignKey("invoices.id"), nullable=False),
    Column("number", SmallInteger, nullable=False),
    *_line(),
    PrimaryKeyConstraint("invoice_id", "number"),
    # A paid period of a service appears on one line of one invoice.
    UniqueConstraint("service_id", "period_number"),
)

credit_notes = Table(
    "credit_notes",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("series", Text, ForeignKey("invoice_series.code"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("issued_on", Date, nullable=False),
    Column("invoice_id", Uuid, ForeignKey("invoices.id"), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("currency", Text, nullable=False),
    *_amounts(),
    UniqueConstraint("series", "number"),
    Index("credit_notes_issued_on", "issued_on", **OF_A_DAY),
    Column("hash", LargeBinary),
)

credit_note_lines = Table(
    "credit_note_lines",
    metadata,
    Column("credit_note_id", Uuid, ForeignKey("credit_notes.id"), nullable=False),
    Column("invoice_id", Uuid, nullable=False),
    Column("invoice_line", SmallInteger, nullable=False),
    *_line(),
    # A line of an invoice is credited once.
    PrimaryKeyConstraint("invoice_id", "invoice_line"),
    ForeignKeyConstraint(
        ["invoice_id", "invoice_line"], ["invoice_lines.invoice_id", "invoice_lines.number"]
    ),
)

refunds = Table(
    "refunds",
    metadata,
    Column("key", Uuid, primary_key=True),
    Column("credit_note_id", Uuid, ForeignKey("credit_notes.id"), nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("charge_key", Uuid, ForeignKey("charges.key"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    state("state", ChargeState),
    Column("reference", Text),
    Column("reason", Text),
    moment("started_at", nullable=False, server_default=func.now()),
    moment("decided_at"),
    # The gateway knows nothing of it: a person paid it back, and says so.
    Column("by_hand", Boolean, nullable=False, server_default="false"),
    UniqueConstraint("credit_note_id", "attempt"),
    Index(
        "refunds_succeeded", "credit_note_id", unique=True, postgresql_where="state = 'succeeded'"
    ),
    Index("refunds_unknown", "started_at", postgresql_where="state = 'unknown'"),
    Index("refunds_decided_at", "decided_at", **OF_A_DAY),
    **CHANGING,
)
