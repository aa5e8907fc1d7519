"""What an operator does about failed tasks and paused lanes."""

import uuid

from sqlalchemy import Connection, Engine

from producers.control import failed, lanes
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock, SystemClock


def give_up(tx: Connection, subject: uuid.UUID, clock: Clock | None = None) -> None:
    """``autorenew failed cancel``."""
    now = (clock or SystemClock()).now()
    failed.cancel(tx, subject, CatalogueCache().current(tx), now)


def resume_all(engine: Engine) -> None:
    """``autorenew lanes resume --all --guard`` for every lane that is paused."""
    with engine.begin() as tx:
        for lane in {pause.lane for pause in lanes.paused(tx)}:
            lanes.resume(tx, lane, everybody=True, guard=True)


def pause(engine: Engine, lane: str) -> None:
    """``autorenew lanes pause LANE``."""
    with engine.begin() as tx:
        assert lanes.pause(tx, lane, "for the test")
