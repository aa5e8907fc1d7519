"""Events for upstream: how far the history went out, and the endpoints over HTTPS."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import func

from schemas.tables.base import is_one_of, metadata, moment, state
from schemas.values import DeliveryOutcome, EndpointState

# Everything up to last_id has gone out; one publisher at a time goes on.
event_cursor = Table(
    "event_cursor",
    metadata,
    Column("sole", Boolean, CheckConstraint("sole", name="sole"), primary_key=True),
    Column("last_id", BigInteger, nullable=False),
    Column("holder", Uuid),
    moment("held_until"),
)

# Stretches of the history that went out: how many events of them, and a digest of which, with which
# sequences. What appears in one later is found by the audit.
event_stretches = Table(
    "event_stretches",
    metadata,
    Column("first_id", BigInteger, primary_key=True, autoincrement=False),
    Column("last_id", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("digest", BigInteger, nullable=False),
    moment("begun_at", nullable=False, server_default=func.now()),
    moment("ended_at", nullable=False, server_default=func.now()),
)

# Events that could not be composed, by a defect: the others went out without them. A replay of
# their time tells them once that is mended, and takes them out.
untold_events = Table(
    "untold_events",
    metadata,
    # Of the history.
    Column("event_id", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    # The kind of error, without what it says: that may quote what is not for everybody.
    Column("error", Text, nullable=False),
    moment("found_at", nullable=False, server_default=func.now()),
)

# Only the role events reads its secrets.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("realm", Text, nullable=False),
    Column("url", Text, nullable=False),
    # Which kinds it is sent, such as order.delivered or order.*; none: all.
    Column("kinds", ARRAY(Text), nullable=False),
    state("state", EndpointState, server_default=EndpointState.ENABLED),
    # Why it is disabled.
    Column("reason", Text),
    Column("secret", Text, nullable=False),
    # The one before, which signs as well for a while.
    Column("previous_secret", Text),
    moment("previous_until"),
    moment("created_at", nullable=False, server_default=func.now()),
    moment("changed_at", nullable=False, server_default=func.now()),
    # Since when nothing could be delivered; NULL: the last try succeeded.
    moment("failing_since"),
    moment("delivered_at"),
    Index("webhook_endpoints_name", "name", unique=True, postgresql_where="state <> 'removed'"),
)

# An event for one endpoint: the subject of a task `deliver`.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("endpoint_id", Uuid, ForeignKey("webhook_endpoints.id"), nullable=False),
    # Of the history; NULL: a test.
    Column("event_id", BigInteger),
    # The id of the CloudEvent, its kind, its subject and its sequence.
    Column("event", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    # What is sent; NULL once it has ended.
    Column("body", Text),
    moment("created_at", nullable=False, server_default=func.now()),
    Column("attempts", Integer, nullable=False, server_default="0"),
    moment("tried_at"),
    # Of the last attempt: HTTP 200, or why there was none.
    Column("answer", Text),
    moment("ended_at"),
    Column("outcome", Text, is_one_of("outcome", DeliveryOutcome)),
    Index("webhook_deliveries_endpoint_id_idx", "endpoint_id", "created_at"),
    Index("webhook_deliveries_ended", "ended_at", postgresql_where="ended_at IS NOT NULL"),
)

# What an operator wants sent once more; the publisher does it, some at a time.
event_replays = Table(
    "event_replays",
    metadata,
    Column("id", Uuid, primary_key=True),
    # NULL: to the exchange.
    Column("endpoint_id", Uuid, ForeignKey("webhook_endpoints.id")),
    moment("since", nullable=False),
    moment("until", nullable=False),
    # Up to which event of the history it is done.
    Column("after_id", BigInteger),
    Column("events", BigInteger, nullable=False, server_default="0"),
    moment("asked_at", nullable=False, server_default=func.now()),
    moment("ended_at"),
    Index("event_replays_open", "asked_at", postgresql_where="ended_at IS NULL"),
)
