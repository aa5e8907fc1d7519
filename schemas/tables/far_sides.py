"""Which gateways and drivers this database belongs with."""

from enum import StrEnum

from sqlalchemy import Column, Table, Text, text

from schemas.tables.base import metadata, moment, state


class FarSideKind(StrEnum):
    GATEWAY = "gateway"
    DRIVER = "driver"


far_sides = Table(
    "far_sides",
    metadata,
    state("kind", FarSideKind, primary_key=True),
    Column("name", Text, primary_key=True),
    # Where it is, without a secret; written by the first process that is configured with it.
    Column("identity", Text, nullable=False),
    moment("since", nullable=False, server_default=text("now()")),
)
