"""Notices to customers, and the e-mails that carry them."""

from sqlalchemy import (
    Column,
    Date,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import func

from schemas.tables.base import metadata, moment

# One e-mail per customer and local day, whose id follows from them, and one for what had to be left
# out of it; its id is its Message-ID.
emails = Table(
    "emails",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("day", Date, nullable=False),
    moment("created_at", nullable=False, server_default=func.now()),
    # When its sending began; no notice is added to it from then on.
    moment("begun_at"),
    moment("sent_at"),
    # When the mail server first refused it for its recipient.
    moment("refused_at"),
    # When a person gave it up: its notices count as those that cannot be delivered.
    moment("given_up_at"),
    Index("emails_customer_day", "customer_id", "day"),
    Index("emails_refused", "refused_at", postgresql_where="refused_at IS NOT NULL"),
)

# One notice per (service, expiry, kind), inserted before the e-mail is composed.
notices = Table(
    "notices",
    metadata,
    Column("service_id", Uuid, ForeignKey("services.id"), nullable=False),
    moment("expires_at", nullable=False),
    Column("kind", Text, nullable=False),
    Column("email_id", Uuid, ForeignKey("emails.id"), nullable=False, index=True),
    PrimaryKeyConstraint("service_id", "expires_at", "kind"),
)

# What they said, once sent, with the links that act taken out; of both kinds.
email_texts = Table(
    "email_texts",
    metadata,
    Column("email_id", Uuid, primary_key=True),
    Column("recipient", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    moment("sent_at", nullable=False),
    # Those that are too old to be kept.
    Index("email_texts_sent_at", "sent_at"),
)

# What became of an order that was paid: one e-mail, or some where its services come hours apart.
# Its id, which follows from the order and the number, is its Message-ID.
order_emails = Table(
    "order_emails",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("order_id", Uuid, ForeignKey("orders.id"), nullable=False),
    # 1 is the first.
    Column("number", SmallInteger, nullable=False),
    # The services it tells of.
    Column("delivered", ARRAY(Uuid), nullable=False),
    Column("given_up", ARRAY(Uuid), nullable=False),
    # As in emails.
    moment("begun_at", nullable=False),
    moment("sent_at"),
    moment("refused_at"),
    moment("given_up_at"),
    UniqueConstraint("order_id", "number"),
    Index("order_emails_refused", "refused_at", postgresql_where="refused_at IS NOT NULL"),
)

# A new link, for a customer whose old one cannot be opened any more: one for a customer and hour.
# Its id, which follows from them, is its Message-ID.
link_emails = Table(
    "link_emails",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("customer_id", Text, ForeignKey("customers.id"), nullable=False),
    moment("hour", nullable=False),
    moment("asked_at", nullable=False),
    moment("begun_at"),
    moment("sent_at"),
    UniqueConstraint("customer_id", "hour"),
)
