"""Corruptions of the events for upstream."""

_ONE = "SELECT id FROM webhook_deliveries ORDER BY id LIMIT 1"

OUTGOING = (
    (
        "an event went out that the history does not have",
        "DELETE FROM events WHERE name = 'order.delivered'",
        "events.handed_over",
    ),
    (
        "an event appears among those that went out",
        """INSERT INTO events (subject, id, name, at) OVERRIDING SYSTEM VALUE
           SELECT gen_random_uuid(), min(id) + 1, 'service.resumed', min(at) FROM events""",
        "events.handed_over",
    ),
    (
        "an event that went out was of another subject",
        """UPDATE events SET subject = gen_random_uuid() WHERE id =
           (SELECT min(id) FROM events WHERE name = 'order.delivered')""",
        "events.handed_over",
    ),
    (
        "events are said to have gone out that did not",
        "UPDATE event_stretches SET events = events + 1",
        "events.handed_over",
    ),
    (
        "an event could not be composed",
        """INSERT INTO untold_events (event_id, kind, error)
           SELECT min(id), 'order.delivered', 'KeyError' FROM events""",
        "events.told",
    ),
    (
        "what went out is skipped",
        "UPDATE event_stretches SET first_id = last_id + 1",
        "events.cursor",
    ),
    (
        "the cursor jumps",
        "UPDATE event_cursor SET last_id = last_id + 5",
        "events.cursor",
    ),
    (
        "the cursor is beyond the history",
        """UPDATE event_cursor SET last_id = 1000000000;
           UPDATE event_stretches SET last_id = 1000000000""",
        "events.cursor",
    ),
    (
        "a delivery has another sequence",
        f"UPDATE webhook_deliveries SET sequence = sequence + 1 WHERE id = ({_ONE})",
        "webhooks.sequence",
    ),
    (
        "a delivery is of another kind",
        "UPDATE webhook_deliveries SET kind = 'order.cancelled' WHERE kind = 'order.delivered'",
        "webhooks.sequence",
    ),
    (
        "a delivery is of what never happened",
        f"UPDATE webhook_deliveries SET event_id = 1000000000 WHERE id = ({_ONE})",
        "webhooks.sequence",
    ),
    (
        "a delivery is forgotten",
        f"""UPDATE webhook_deliveries SET ended_at = NULL, outcome = NULL, body = '{{}}'
           WHERE id = ({_ONE})""",
        "webhooks.task",
    ),
    (
        "a delivery has ended without an outcome",
        f"UPDATE webhook_deliveries SET outcome = NULL WHERE id = ({_ONE})",
        "webhooks.facts",
    ),
    (
        "what was delivered was never tried",
        f"UPDATE webhook_deliveries SET attempts = 0 WHERE id = ({_ONE})",
        "webhooks.facts",
    ),
)
