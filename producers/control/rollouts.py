"""Where renewal is switched on, by brand and subsidiary: switching it, and who did so before."""

import uuid
from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from producers import history
from producers.history import Event
from schemas.catalogue.store import set_rollout
from schemas.values import derived_id

_STARTS_ON = text(
    "SELECT starts_on FROM rollouts WHERE brand = :brand AND subsidiary = :subsidiary"
)
_HISTORY = text("SELECT at, name, detail FROM events WHERE subject = :subject ORDER BY at, id")


def subject_of(brand: str, subsidiary: str) -> uuid.UUID:
    """What the history of a brand's renewals in a subsidiary is kept under."""
    return derived_id("rollout", brand, subsidiary)


def switch(tx: Connection, brand: str, subsidiary: str, starts_on: date | None) -> date | None:
    """Switch renewal on from a local day, or off, and keep it in the history.

    Nothing is done where it is off and is to be.

    Args:
        starts_on: None: off.

    Returns:
        From which day it was on before; None: it was off.
    """
    where = {"brand": brand, "subsidiary": subsidiary}
    was: date | None = tx.execute(_STARTS_ON, where).scalar()
    if was is None and starts_on is None:
        return None
    set_rollout(tx, brand, subsidiary, starts_on)
    days = {"starts_on": starts_on and str(starts_on), "before": was and str(was)}
    name = "rollout.removed" if starts_on is None else "rollout.set"
    history.record(tx, [Event(subject_of(brand, subsidiary), name, {**where, **days})])
    return was


def history_of(tx: Connection, brand: str, subsidiary: str) -> Sequence[Any]:
    """The events of a brand's renewals in a subsidiary, the oldest first."""
    return tx.execute(_HISTORY, {"subject": subject_of(brand, subsidiary)}).all()
