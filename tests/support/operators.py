"""What an operator does about failed tasks."""

import uuid

from sqlalchemy import Connection

from producers.control import failed
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, SystemClock


def give_up(tx: Connection, subject: uuid.UUID, clock: Clock | None = None) -> None:
    """``autorenew failed cancel``."""
    now = (clock or SystemClock()).now()
    failed.cancel(tx, subject, CatalogueCache().current(tx), now)
