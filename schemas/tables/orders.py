"""Orders and their lines, and documents that were rejected."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import func

from schemas.tables.base import CHANGING, OF_A_DAY, metadata, moment, own_payment_method, state
from schemas.values import OrderState

# Refused orders have neither an end nor a customer. `state` changes with each step of an order: an
# index over it would make every such update touch every index of the table.
IS_OPEN = "ended_at IS NULL AND customer_id IS NOT NULL"

orders = Table(
    "orders",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("upstream", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    state("state", OrderState),
    # From here to payment_method_id: NULL in a refused order, which has problems instead.
    Column("customer_id", Text, ForeignKey("customers.id"), index=True),
    Column("subsidiary", Text),
    Column("country", Text),
    Column("vat_number", Text),
    Column("payment_method_id", Uuid),
    # Name, company and postal address of whom it is billed to, as the document says.
    Column("billed_to", JSONB),
    Column("problems", JSONB),
    Column("reason", Text),
    # The W3C trace context that it came with, or that was made for it: a header traceparent.
    Column("trace", Text),
    moment("accepted_at", nullable=False, server_default=func.now()),
    moment("ended_at"),
    UniqueConstraint("key", "upstream"),
    # What has not come to its end, the oldest first.
    Index("orders_accepted_at", "accepted_at", **OF_A_DAY),
    Index("orders_open", "accepted_at", postgresql_where=IS_OPEN),
    own_payment_method(deferrable=True, initially="DEFERRED"),
    **CHANGING,
)

order_lines = Table(
    "order_lines",
    metadata,
    Column("order_id", Uuid, ForeignKey("orders.id"), nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("plan", Text, nullable=False),
    Column("period_months", SmallInteger, nullable=False),
    Column("quantity", SmallInteger, nullable=False),
    Column("configuration", JSONB, nullable=False),
    # Net of each unit as it was accepted; NULL: the release before accepted it.
    Column("setup", BigInteger),
    Column("renewal", BigInteger),
    Column("currency", Text),
    PrimaryKeyConstraint("order_id", "number"),
)

rejected_documents = Table(
    "rejected_documents",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("upstream", Text, nullable=False),
    Column("door", Text, nullable=False),
    Column("key", Text),
    Column("code", Text, nullable=False),
    Column("problems", JSONB, nullable=False),
    Column("body", Text, nullable=False),
    Column("times", Integer, nullable=False, server_default="1"),
    moment("received_at", nullable=False, server_default=func.now(), index=True),
)
