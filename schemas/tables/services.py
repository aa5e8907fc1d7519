"""What customers rent, what should be, and what was last confirmed at the infrastructure."""

from sqlalchemy import (
    Column,
    Date,
    ForeignKey,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import func

from schemas.tables.base import CHANGING, is_one_of, metadata, moment, state
from schemas.values import OperationState, RenewalMode, ResourceState, ServiceState, Universe

services = Table(
    "services",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("order_id", Uuid, ForeignKey("orders.id"), nullable=False),
    Column("line", SmallInteger, nullable=False),
    Column("unit", SmallInteger, nullable=False),
    Column("customer_id", Text, nullable=False),
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
    moment("expires_at"),
    # What should be; every change of mind takes the next generation.
    state("desired", ResourceState, server_default=ResourceState.ABSENT),
    Column("generation", Integer, nullable=False, server_default="1"),
    # What the driver last confirmed.
    state("confirmed", ResourceState, server_default=ResourceState.ABSENT),
    Column("confirmed_until", Date),
    Column("resource_id", Text),
    UniqueConstraint("order_id", "line", "unit"),
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
    **CHANGING,
)
