"""Who may use the console, and who does."""

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, Table, Text
from sqlalchemy.sql import func

from schemas.tables.base import metadata, moment, state
from schemas.values import OperatorRole

operators = Table(
    "operators",
    metadata,
    Column("name", Text, primary_key=True),
    state("role", OperatorRole),
    # By argon2; None: no password opens it.
    Column("password_hash", Text),
    # Who vouches for them: the issuer of OpenID Connect; None: their password.
    Column("issuer", Text),
    moment("created_at", nullable=False, server_default=func.now()),
    moment("changed_at", nullable=False, server_default=func.now()),
    moment("signed_in_at"),
)

# A browser holds the token, the database its SHA-256.
console_sessions = Table(
    "console_sessions",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column(
        "operator", Text, ForeignKey("operators.name", ondelete="CASCADE"), nullable=False,
        index=True,
    ),
    moment("begun_at", nullable=False, server_default=func.now()),
    moment("seen_at", nullable=False, server_default=func.now()),
)  # fmt: skip

# Links that sign in once.
one_time_logins = Table(
    "one_time_logins",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("operator", Text, ForeignKey("operators.name", ondelete="CASCADE"), nullable=False),
    moment("expires_at", nullable=False),
)

# Of a name or an address, since its last success or a pause.
sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    Column("who", Text, primary_key=True),
    Column("failures", Integer, nullable=False, server_default="1"),
    moment("last_at", nullable=False, server_default=func.now()),
)
