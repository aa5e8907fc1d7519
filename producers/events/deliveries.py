"""Events for endpoints over HTTPS: each delivery is a row, and a task of the ledger."""

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from producers import ledger
from producers.events import untold
from producers.events.composing import Composer, Outgoing
from producers.events.exchange import Exchange
from producers.events.reading import LATE, facts, first_since, read
from producers.steps import DELIVER, webhook_place
from schemas.events import Kind
from schemas.tables import webhook_deliveries
from schemas.tables.bulk import insert
from schemas.values import derived_id

# Events of the history that are looked through at once for a replay.
REPLAYED = 200
FORGET_EVERY_SECONDS = 60.0
FORGOTTEN = 1000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    Attributes:
        kinds: that it is sent, such as ``order.delivered`` or ``order.*``; none: all.
    """

    id: uuid.UUID
    name: str
    realm: str
    kinds: Sequence[str]

    def wants(self, event: Outgoing) -> bool:
        return event.realm == self.realm and is_wanted(event.kind, self.kinds)


def is_wanted(kind: Kind, patterns: Sequence[str]) -> bool:
    """
    >>> is_wanted(Kind.ORDER_DELIVERED, ["order.*"]), is_wanted(Kind.ORDER_DELIVERED, [])
    (True, True)
    """
    family = f"{kind.partition('.')[0]}.*"
    return not patterns or kind in patterns or family in patterns


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    id: uuid.UUID
    endpoint_id: uuid.UUID
    event_id: int | None
    event: uuid.UUID
    kind: str
    subject: str
    sequence: int
    body: str

    @classmethod
    def of(cls, endpoint: uuid.UUID, event: Outgoing) -> "DeliveryRow":
        return cls(
            derived_id("delivery", endpoint, event.id),
            endpoint,
            event.history_id,
            event.id,
            event.kind,
            event.subject,
            event.sequence,
            event.body.decode(),
        )


# An operator, who may not read what is sent, adds one.
_ADD = insert(DeliveryRow, webhook_deliveries)
# One that is there already is replayed; an attempt that is under way meanwhile does not end it.
_WRITE = insert(
    DeliveryRow,
    webhook_deliveries,
    """ON CONFLICT (id) DO UPDATE SET body = excluded.body, created_at = now(), tried_at = NULL,
        ended_at = NULL, outcome = NULL""",
)
_ENABLED = text("""
    SELECT id, name, realm, kinds FROM webhook_endpoints WHERE state = 'enabled' ORDER BY id
""")


def write(
    tx: Connection, sent: Iterable[tuple[Endpoint, Outgoing]], *, are_new: bool = False
) -> list[uuid.UUID]:
    """Have events delivered to endpoints.

    Args:
        are_new: none of them was delivered there before.

    Returns:
        The ids of the deliveries.
    """
    rows, subjects = [], []
    for endpoint, event in sent:
        row = DeliveryRow.of(endpoint.id, event)
        rows.append(row)
        subjects.append((row.id, webhook_place(endpoint.name)))
    if rows:
        (_ADD if are_new else _WRITE)(tx, rows)
        ledger.enqueue(tx, DELIVER, subjects)
    return [row.id for row in rows]


# Looked at by one publisher at a time, the one that holds the cursor.
_REPLAY = text("""
    SELECT r.id, r.since, r.until, r.after_id, e.id AS endpoint_id, e.name, e.realm, e.kinds,
        r.endpoint_id IS NULL OR e.state = 'enabled' AS is_enabled
    FROM event_replays AS r LEFT JOIN webhook_endpoints AS e ON e.id = r.endpoint_id
    WHERE r.ended_at IS NULL ORDER BY r.asked_at, r.id LIMIT 1
""")
_REPLAYED = text("""
    UPDATE event_replays SET after_id = :after, events = events + :events,
        ended_at = CASE WHEN :ended THEN now() END
    WHERE id = :id
""")
_FORGET = text("""
    DELETE FROM webhook_deliveries WHERE id IN (
        SELECT id FROM webhook_deliveries
        WHERE ended_at < now() - make_interval(days => :days) LIMIT :most)
""")


class Deliveries:
    """
    Args:
        exchange: where replays go that are not for an endpoint.
        keep_days: how long deliveries that have ended are kept.
    """

    def __init__(
        self, engine: Engine, composer: Composer, exchange: Exchange, *, keep_days: int
    ) -> None:
        self._engine = engine
        self._exchange = exchange
        self._composer = composer
        self._keep_days = keep_days
        self._next_forget = 0.0

    def hand_over(self, tx: Connection, events: Sequence[Outgoing]) -> None:
        """Enqueue the deliveries of events that were just published."""
        endpoints = [
            Endpoint(row.id, row.name, row.realm, row.kinds) for row in tx.execute(_ENABLED)
        ]
        write(
            tx,
            (
                (endpoint, event)
                for event in events
                for endpoint in endpoints
                if endpoint.wants(event)
            ),
        )

    def chores(self, upto: int) -> bool:
        """Go on with a replay, and forget old deliveries.

        Args:
            upto: the cursor.

        Returns:
            Whether a replay has more to do.
        """
        if (now := time.monotonic()) >= self._next_forget:
            with self._engine.begin() as tx:
                parameters = {"days": self._keep_days, "most": FORGOTTEN}
                forgotten = tx.execute(_FORGET, parameters).rowcount
            self._next_forget = now if forgotten == FORGOTTEN else now + FORGET_EVERY_SECONDS
        with self._engine.begin() as tx:
            replay = tx.execute(_REPLAY).first()
        if replay is None:
            return False
        self._replay(replay, upto)
        return True

    def _replay(self, replay: Any, upto: int) -> None:
        with self._engine.begin() as tx:
            after = replay.after_id
            if after is None:
                after = first_since(tx, replay.since, upto)
            happened = read(tx, after, upto, REPLAYED) if replay.is_enabled else []
            chosen = [one for one in happened if replay.since <= one.at < replay.until]
            composed, left_out = (
                self._composer.compose(chosen, facts(tx, chosen)) if chosen else ([], [])
            )
        if replay.endpoint_id is None:
            self._exchange.publish(composed)
        is_over = len(happened) < REPLAYED or happened[-1].at >= replay.until + LATE
        with self._engine.begin() as tx:
            sent = len(composed)
            untold.keep(tx, left_out)
            if replay.endpoint_id is None:  # endpoints have not had these, either
                self.hand_over(tx, untold.told(tx, composed))
            else:
                to = Endpoint(replay.endpoint_id, replay.name, replay.realm, replay.kinds)
                sent = len(write(tx, [(to, event) for event in composed if to.wants(event)]))
            parameters = {
                "id": replay.id,
                "after": happened[-1].id if happened else after,
                "events": sent,
                "ended": is_over,
            }
            tx.execute(_REPLAYED, parameters)
