"""Planned changes of subsidiaries: put in force on their day, then carried over to services."""

import logging
import time
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from monitoring import metrics
from producers import history, ledger
from producers.history import Event
from producers.renewals import next_steps
from producers.steps import RENEWAL, WITHDRAW
from schemas.catalogue import Catalogue, changes
from schemas.catalogue.changes import LOCK_NOT_AVAILABLE, CannotApply
from schemas.values import DELIVERED, Money

log = logging.getLogger(__name__)

# Putting one in force stops everybody for a moment, so what cannot be is not tried all the time.
RETRY_SECONDS = 5.0


class Changes:
    """Puts changes in force whose day has come.

    Args:
        engine: as the database role ``scheduler``.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._not_before = 0.0
        self._told: dict[int, str] = {}

    def put_in_force(self, due: Sequence[Any]) -> int:
        """Put in force what can be; returns how many were.

        What cannot be is logged once for each reason, shown by a metric, and tried again.

        Args:
            due: what :func:`schemas.catalogue.changes.due` found.
        """
        if not due:
            metrics.changes_overdue().set(0)
            return 0
        if time.monotonic() < self._not_before:
            return 0
        waiting: dict[int, str] = {}
        for change in due:
            why = self._apply(change)
            if why is None:
                continue
            waiting[change.id] = why
            if self._told.get(change.id) != why:
                log.warning("subsidiary %s cannot be changed yet: %s", change.subsidiary, why)
        metrics.changes_overdue().set(len(waiting))
        self._told = waiting
        self._not_before = time.monotonic() + RETRY_SECONDS if waiting else 0.0
        return len(due) - len(waiting)

    def _apply(self, change: Any) -> str | None:
        """Returns why it cannot be put in force now; None: it is, or was withdrawn."""
        try:
            with self._engine.begin() as tx:
                changes.apply(tx, change.id)
        except CannotApply as error:
            return None if error.code == "not_planned" else str(error)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            return "a transaction that has read the catalogue does not end, such as a backup"
        log.info("the change of subsidiary %s is in force; its services follow", change.subsidiary)
        return None


_CARRY_OVER = text("SELECT * FROM carry_over(:change, :ids, :now)")
_SUBSIDIARY = text("SELECT subsidiary FROM subsidiary_changes WHERE id = :change")


def carry_over(
    tx: Connection, change: int, ids: Collection[uuid.UUID], catalogue: Catalogue, now: datetime
) -> None:
    """What a change that is in force means for services of its subsidiary, which are locked.

    Their expiry is moved to the midnight of the new time zone, and their notices with it; prices
    that were fixed in the former currency are given up; customers who were told an amount in it are
    to be told of the new one; payment requests from before are to be withdrawn.
    """
    converted = tx.execute(_CARRY_OVER, {"change": change, "ids": list(ids), "now": now}).all()
    history.record(
        tx,
        (
            Event(
                row.service_id,
                "renewal.converted",
                {
                    "announced": None
                    if row.announced is None
                    else str(Money(row.announced, row.announced_currency)),
                    "net_before": str(Money(row.net, row.currency)),
                    "net": str(Money(row.new_net, row.new_currency)),
                },
            )
            for row in converted
        ),
    )
    services = next_steps.load(tx, ids, catalogue)
    asked_for = [s.id for s in services if s.request_id is not None]
    if asked_for:
        ledger.enqueue(tx, WITHDRAW, [(service, RENEWAL) for service in asked_for])
    next_steps.decide(tx, [s for s in services if s.view.state in DELIVERED], now)
    subsidiary = tx.execute(_SUBSIDIARY, {"change": change}).scalar_one()
    metrics.carried_over.labels(subsidiary).inc(len(services))
