"""What customers rent, what should be, and what was last confirmed at the infrastructure."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import func

from schemas.rules.lifecycle import Step
from schemas.tables.base import CHANGING, is_one_of, metadata, moment, own_payment_method, state
from schemas.values import OperationState, RenewalMode, ResourceState, ServiceState, Universe

services = Table(
    "services",
    metadata,
    Column("id", Uuid, primary_key=True),
    # None: it was taken over from another system.
    Column("order_id", Uuid, ForeignKey("orders.id")),
    Column("line", SmallInteger),
    Column("unit", SmallInteger),
    Column("customer_id", Text, nullable=False, index=True),
    Column("subsidiary", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("universe", Text, is_one_of("universe", Universe), nullable=False),
    Column("brand", Text, nullable=False),
    Column("driver", Text, nullable=False),
    Column("configuration", JSONB, nullable=False),
    Column("period_months", SmallInteger, nullable=False),
    state("mode", RenewalMode, server_default=RenewalMode.AUTOMATIC),
    state("state", ServiceState, server_default=ServiceState.PENDING),
    # Subsidiary-local date of delivery; the n-th paid period ends at anchor + n x period.
    Column("anchor", Date),
    Column("paid_periods", Integer, nullable=False, server_default="0"),
    # Those of them that were paid before it was taken over.
    Column("imported_periods", Integer, nullable=False, server_default="0"),
    moment("expires_at"),
    # What should be; every change of mind takes the next generation.
    state("desired", ResourceState, server_default=ResourceState.ABSENT),
    Column("generation", Integer, nullable=False, server_default="1"),
    # What the driver last confirmed.
    state("confirmed", ResourceState, server_default=ResourceState.ABSENT),
    Column("confirmed_until", Date),
    Column("resource_id", Text),
    # What its driver says of it for the customer, such as an address: texts by name.
    Column("details", JSONB),
    # Since when it is suspended for want of payment.
    moment("suspended_at"),
    # Since when an operator has it suspended, and why: whatever is paid, or is not.
    moment("held_at"),
    Column("held_because", Text),
    moment("taken_over_at"),
    # What it was before its customer stopped it, so that this can be undone.
    Column("mode_before", Text, is_one_of("mode_before", RenewalMode)),
    moment("mode_changed_at"),
    # How it is paid for; the method itself says until when it can be charged.
    Column("payment_method_id", Uuid),
    # Written by processes of the release before, read by nobody since: the next release drops it.
    Column("pays_until", Date),
    # The newest version of its plan's contract that its customer accepted.
    Column("agreed_version", Integer),
    # What schemas.rules.lifecycle.next_step says; it stays until whoever does it decides anew.
    Column("next_step", Text, is_one_of("next_step", Step)),
    moment("next_step_at"),
    # Whom its task is about, where that is not the service itself.
    Column("next_subject", Uuid),
    UniqueConstraint("order_id", "line", "unit"),
    own_payment_method(),
    # A sweep is answered by it alone.
    Index(
        "services_due",
        "next_step",
        "next_step_at",
        postgresql_include=["next_subject"],
        postgresql_where="next_step_at IS NOT NULL",
    ),
    Index(
        "services_domain",
        text("lower(configuration->>'domain')"),
        postgresql_where=text("configuration->>'domain' IS NOT NULL"),
    ),
    Index("services_held", "held_at", postgresql_where="held_at IS NOT NULL"),
    Index("services_group", "next_subject", postgresql_where="next_step = 'request'"),
    **CHANGING,
)

# What has happened about one renewal of a service, from the first reminder on.
renewals = Table(
    "renewals",
    metadata,
    Column("service_id", Uuid, ForeignKey("services.id"), nullable=False),
    # The first of the periods it buys.
    Column("period_number", Integer, nullable=False),
    Column("expires_on", Date, nullable=False),
    # Of one period; fixed by the first reminder, with its currency.
    Column("net", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    # What e-mails told its customer to pay, with tax: last, in what currency, and when; when one
    # told more than the one before, or in another currency.
    Column("announced", BigInteger),
    Column("announced_currency", Text),
    moment("announced_at"),
    moment("raised_at"),
    # How often it was found to cost more than that, and when last.
    Column("dearer", SmallInteger, nullable=False, server_default="0"),
    moment("dearer_at"),
    # The open payment request it is on.
    Column("request_id", Uuid),
    # From when on that asks for the wrong amount: its periods or its tax rate are others then.
    moment("stands_until"),
    # How many it has been on: names the next one.
    Column("requests", SmallInteger, nullable=False, server_default="0"),
    moment("asked_at"),
    Column("declines", SmallInteger, nullable=False, server_default="0"),
    moment("declined_at"),
    moment("last_declined_at"),
    # The W3C trace context that it began: a header traceparent. NULL: nothing was traced then.
    Column("trace", Text),
    PrimaryKeyConstraint("service_id", "period_number"),
    CheckConstraint(
        "(announced IS NULL) = (announced_currency IS NULL)", name="announced_currency"
    ),
    Index("renewals_expires_on", "expires_on"),
    **CHANGING,
)

operations = Table(
    "operations",
    metadata,
    Column("key", Uuid, primary_key=True),
    Column("service_id", Uuid, ForeignKey("services.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    state("state", OperationState),
    # What was asked for, so that it is asked for again in the same words.
    Column("paid_until", Date, nullable=False),
    Column("reason", Text),
    moment("started_at", nullable=False, server_default=func.now()),
    moment("ended_at"),
    # Most are of renewals, which a driver is asked about no more.
    Index(
        "operations_telling", "service_id", postgresql_where="kind <> 'extend' OR state <> 'done'"
    ),
    **CHANGING,
)

# When a driver's book was last compared with the services that should be there, and the outcome.
reconciliations = Table(
    "reconciliations",
    metadata,
    Column("driver", Text, primary_key=True),
    # The subject of its task; follows from the driver's name.
    Column("id", Uuid, nullable=False, unique=True),
    moment("asked_at", nullable=False, server_default=func.now()),
    moment("ended_at"),
    # clean, differences, too_many, unavailable
    Column("outcome", Text),
    # How many of each kind, and how many of them were mended.
    Column("differences", JSONB),
)
