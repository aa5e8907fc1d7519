"""Keys of the HTTP API, and what was answered under idempotency keys."""

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql import func

from schemas.tables.base import metadata, moment

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    # Who is told in the history.
    Column("name", Text, nullable=False, unique=True),
    # The visible part, by which a key is found.
    Column("prefix", Text, nullable=False, unique=True),
    # SHA-256 of the secret part.
    Column("hash", LargeBinary, nullable=False),
    # Whose orders it places; NULL: it is an operator's, and sees all realms.
    Column("upstream", Text),
    Column("scopes", ARRAY(Text), nullable=False),
    # The only brands and subsidiaries that the key may use; NULL: all.
    Column("brands", ARRAY(Text)),
    Column("subsidiaries", ARRAY(Text)),
    # Requests, and orders of batches, that a process answers it in a second.
    Column("per_second", Integer, nullable=False),
    moment("created_at", nullable=False, server_default=func.now()),
    Column("created_by", Text, nullable=False),
    moment("expires_at"),
    moment("revoked_at"),
    # Written once a minute at most.
    moment("last_used_at"),
)

# A request under an Idempotency-Key, and its answer, in the transaction that did what it asks for.
api_answers = Table(
    "api_answers",
    metadata,
    Column("key_id", Uuid, ForeignKey("api_keys.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    Column("body", Text),
    moment("answered_at", nullable=False, server_default=func.now(), index=True),
    PrimaryKeyConstraint("key_id", "name"),
)
