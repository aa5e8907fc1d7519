"""Events for upstream: all of them went out, in sequences without gaps, and reach endpoints."""

from collections.abc import Iterator

from sqlalchemy import TextClause, text

from monitoring.audit.checks import Books, Check, Offence, Since, sql

# Counted anew from the history. With a mark: the stretches that went on after it. A stretch has no
# id that is drawn evenly: it is given one, by which the check is cut into pieces.
_STRETCHES = text("""
    SELECT s.first_id, s.last_id FROM event_stretches AS s
    LEFT JOIN LATERAL (
        SELECT count(*) AS events, coalesce(bit_xor(event_digest(e.id, e.kind, e.sequence)), 0)
            AS digest
        FROM (
            SELECT e.id, event_kind(e.id, e.name, e.detail) AS kind,
                (SELECT count(*) FROM events AS b WHERE b.subject = e.subject AND b.id <= e.id
                   AND event_kind(b.id, b.name, b.detail) IS NOT NULL) AS sequence
            FROM events AS e WHERE e.id BETWEEN s.first_id AND s.last_id
        ) AS e WHERE e.kind IS NOT NULL
    ) AS f ON true
    WHERE s.last_id > :after
      AND CAST(md5(CAST(s.first_id AS text)) AS uuid) BETWEEN :low AND :high
      AND (s.events, s.digest) IS DISTINCT FROM (f.events, f.digest)
    ORDER BY s.first_id
""")


def _handed_over(books: Books) -> Iterator[Offence]:
    after = 0 if books.mark is None else books.mark.last_id
    for row in books.rows(_STRETCHES, after=after):
        yield Offence("events", f"{row.first_id} to {row.last_id}")


# With a mark: of events after it.
_SEQUENCE = text("""
    SELECT d.id FROM webhook_deliveries AS d
    LEFT JOIN events AS e ON e.subject = CAST(split_part(d.subject, '/', 2) AS uuid)
      AND e.id = d.event_id
    WHERE d.event_id > :after AND d.id BETWEEN :low AND :high
      AND (event_kind(e.id, e.name, e.detail), (
        SELECT count(*) FROM events AS b WHERE b.subject = e.subject AND b.id <= e.id
          AND event_kind(b.id, b.name, b.detail) IS NOT NULL))
      IS DISTINCT FROM (d.kind, d.sequence)
""")
_FACTS = text("""
    SELECT id FROM webhook_deliveries
    WHERE coalesce(event_id, :after + 1) > :after AND id BETWEEN :low AND :high AND (
        (ended_at IS NULL) <> (outcome IS NULL) OR (ended_at IS NULL) <> (body IS NOT NULL)
        OR (outcome = 'delivered' AND attempts = 0))
""")


def _deliveries(books: Books, statement: TextClause) -> Iterator[Offence]:
    after = 0 if books.mark is None else books.mark.last_id
    for (delivery,) in books.rows(statement, after=after):
        yield Offence("delivery", str(delivery))


CHECKS = (
    Check(
        "events.handed_over",
        "every event of a published kind up to the cursor went out, with the sequence it has",
        _handed_over,
        since=Since.ONCE,
    ),
    sql(
        "events.told",
        "every event that went by was told: none is left out because it could not be composed",
        "SELECT 'event', event_id::text FROM untold_events ORDER BY event_id",
        since=Since.ONCE,
    ),
    sql(
        "events.cursor",
        "what went out is one stretch after the other, up to the cursor, within the history",
        """
        SELECT 'event', first_id::text FROM (
            SELECT first_id, last_id, lag(last_id) OVER (ORDER BY first_id) AS before
            FROM event_stretches) AS s
        WHERE first_id > last_id OR first_id <> before + 1
        UNION ALL
        SELECT 'event', c.last_id::text FROM event_cursor AS c
        WHERE c.last_id > (SELECT last_value FROM events_id_seq)
           OR c.last_id <> (SELECT max(last_id) FROM event_stretches)""",
        since=Since.ONCE,
    ),
    Check(
        "webhooks.sequence",
        "a delivery to an endpoint is of an event that is in the history, with its sequence",
        lambda books: _deliveries(books, _SEQUENCE),
        since=Since.ONCE,
    ),
    sql(
        "webhooks.task",
        "a delivery that has not ended has a task",
        """
        SELECT 'delivery', d.id::text FROM webhook_deliveries AS d
        WHERE d.ended_at IS NULL AND d.id BETWEEN :low AND :high
          AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.name = 'deliver' AND t.subject = d.id)""",
        since=Since.ONCE,
    ),
    Check(
        "webhooks.facts",
        "a delivery has an outcome once it has ended, and what is sent until then",
        lambda books: _deliveries(books, _FACTS),
        since=Since.ONCE,
    ),
)
