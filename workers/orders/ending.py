"""When an order is at an end: whoever completes a part asks here."""

import uuid
from collections.abc import Iterable

from sqlalchemy import Connection, text

from producers import history
from producers.history import Event

# Locks the whole before it counts what is left: two that complete the last two parts at once
# see each other.
_LOCK = text("""
    SELECT id FROM orders WHERE id = ANY(:ids) AND state = 'paid'
    ORDER BY id FOR NO KEY UPDATE
""")

_END = text("""
    UPDATE orders AS o SET ended_at = now(), state = CASE
        WHEN s.delivered = s.services THEN 'delivered'
        WHEN s.delivered > 0 THEN 'partly_delivered'
        ELSE 'cancelled' END
    FROM (
        SELECT order_id, count(*) AS services,
               count(*) FILTER (WHERE state IN ('pending', 'delivering')) AS open,
               count(*) FILTER (WHERE state NOT IN ('pending', 'delivering', 'cancelled'))
                   AS delivered
        FROM services WHERE order_id = ANY(:ids) GROUP BY order_id
    ) AS s
    WHERE o.id = s.order_id AND s.open = 0
    RETURNING o.id, o.state
""")


def end_orders(tx: Connection, order_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """End those paid orders of which every service is delivered or given up.

    Returns:
        Those that it ended.
    """
    locked = tx.execute(_LOCK, {"ids": sorted(set(order_ids))}).scalars().all()
    if not locked:
        return set()
    ended = tx.execute(_END, {"ids": locked}).all()
    history.record(tx, (Event(order_id, f"order.{state}") for order_id, state in ended))
    return {order_id for order_id, _ in ended}
