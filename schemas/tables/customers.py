"""Who buys, how they pay, and what they agreed to."""

from sqlalchemy import (
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import func

from schemas.tables.base import metadata, moment, own_payment_method

customers = Table(
    "customers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("subsidiary", Text, nullable=False),
    Column("country", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("vat_number", Text),
    Column("name", Text),
    Column("company", Text),
    # As in an order document: lines, postal_code, city, state, country.
    Column("address", JSONB),
    # Which upstreams may order for it and command it; NULL: any, as before there were realms.
    Column("realm", Text),
    # The saved payment method: it pays orders that name none.
    Column("payment_method_id", Uuid),
    moment("updated_at", nullable=False, server_default=func.now()),
    # A customer is written before the method, which names its customer.
    own_payment_method("id", use_alter=True, deferrable=True, initially="DEFERRED"),
    Index("customers_email", text("lower(email)")),
)

# Only the role billing may read the token.
payment_methods = Table(
    "payment_methods",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("customer_id", Text, ForeignKey("customers.id"), nullable=False),
    Column("token", Text, nullable=False),
    # Where the token is known: the name a gateway is configured under.
    Column("gateway", Text, nullable=False, server_default="default"),
    # The last day on which it can be charged, if known.
    Column("expires_on", Date),
    moment("created_at", nullable=False, server_default=func.now()),
    UniqueConstraint("customer_id", "gateway", "token"),
    # What names a method names its customer, too: nobody pays with another's.
    UniqueConstraint("id", "customer_id"),
)

agreements = Table(
    "agreements",
    metadata,
    Column("customer_id", Text, ForeignKey("customers.id"), nullable=False),
    Column("contract", Text, nullable=False),
    Column("version", Integer, nullable=False),
    moment("accepted_at", nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("customer_id", "contract", "version"),
)
