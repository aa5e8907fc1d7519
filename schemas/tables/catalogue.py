"""The catalogue as it is in force: plans are data."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql import func

from schemas.tables.base import is_one_of, metadata, moment
from schemas.values import Universe

subsidiaries = Table(
    "subsidiaries",
    metadata,
    Column("code", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    # When its currency, time zone or country was last changed: what was asked for before is not
    # charged any more.
    moment("changed_at"),
)

# Changes of a subsidiary that services depend on: planned, and then applied on their day.
subsidiary_changes = Table(
    "subsidiary_changes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("subsidiary", Text, ForeignKey("subsidiaries.code"), nullable=False),
    # The local day that it holds from.
    Column("since", Date, nullable=False),
    # The fields that become others; with a currency, what everything costs in it.
    Column("definition", JSONB, nullable=False),
    Column("prices", JSONB, nullable=False, server_default="[]"),
    moment("planned_at", nullable=False, server_default=func.now()),
    moment("applied_at"),
    # What those fields were.
    Column("former", JSONB),
    Index(
        "subsidiary_changes_planned",
        "subsidiary",
        unique=True,
        postgresql_where="applied_at IS NULL",
    ),
)

contracts = Table(
    "contracts",
    metadata,
    Column("code", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("definition", JSONB, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("code", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("code", Text, primary_key=True),
    Column("universe", Text, is_one_of("universe", Universe), nullable=False),
    Column("brand", Text, nullable=False),
    Column("driver", Text, nullable=False),
    Column("contract", Text, ForeignKey("contracts.code")),
    Column("policy", Text, ForeignKey("policies.code")),
    Column("on_sale", Boolean, nullable=False, server_default="true"),
    Column("definition", JSONB, nullable=False),
)

prices = Table(
    "prices",
    metadata,
    Column("plan", Text, ForeignKey("plans.code"), nullable=False),
    Column("subsidiary", Text, ForeignKey("subsidiaries.code"), nullable=False),
    Column("period_months", SmallInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("setup", BigInteger, CheckConstraint("setup >= 0", name="setup"), nullable=False),
    Column("renewal", BigInteger, CheckConstraint("renewal >= 0", name="renewal"), nullable=False),
    # False: only renewals still use this price.
    Column("on_sale", Boolean, nullable=False, server_default="true"),
    PrimaryKeyConstraint("plan", "subsidiary", "period_months"),
)

# Where renewal is switched on, and from which local day.
rollouts = Table(
    "rollouts",
    metadata,
    Column("brand", Text, nullable=False),
    Column("subsidiary", Text, nullable=False),
    Column("starts_on", Date, nullable=False),
    PrimaryKeyConstraint("brand", "subsidiary"),
)

# Services whose next step has to be decided again, after a change of the catalogue or a rollout.
recomputations = Table(
    "recomputations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # Which services; NULL means every plan, every brand, every subsidiary.
    Column("plans", ARRAY(Text)),
    Column("brand", Text),
    Column("subsidiary", Text),
    # The change of their subsidiary that is carried over to them.
    Column("change_id", BigInteger, ForeignKey("subsidiary_changes.id")),
    # Services are recomputed in the order of their ids, and are done up to this one.
    Column("after", Uuid),
    moment("wanted_at", nullable=False, server_default=func.now()),
)

# One row, bumped by every load: processes compare it with what they hold in memory.
catalogue_version = Table(
    "catalogue_version",
    metadata,
    Column("sole", Boolean, CheckConstraint("sole", name="sole"), primary_key=True),
    Column("version", BigInteger, nullable=False),
    moment("loaded_at", nullable=False, server_default=func.now()),
)
