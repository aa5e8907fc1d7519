"""The audit compares pauses with the history, and knows since when a payment method is known."""

import json

from alembic import op
from sqlalchemy import text

from schemas.values import derived_id

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# Pauses that are older than the events of pauses, the oldest of each lane first.
_UNTOLD = text("""
    SELECT p.lane, p.paused_by, p.reason, p.id FROM (
        SELECT lane, paused_by, reason, id, count(*) OVER (PARTITION BY lane) AS standing,
            row_number() OVER (PARTITION BY lane ORDER BY id) AS nth
        FROM lane_pauses) AS p
    LEFT JOIN (
        SELECT detail->>'lane' AS lane, count(*) FILTER (WHERE name = 'lane.paused')
            - count(*) FILTER (WHERE name = 'lane.resumed') AS told
        FROM events WHERE subject = ANY(:subjects) AND name IN ('lane.paused', 'lane.resumed')
        GROUP BY 1
    ) AS e ON e.lane = p.lane
    WHERE p.nth <= p.standing - coalesce(e.told, 0)
    ORDER BY p.id
""")
_TELL = text("""
    INSERT INTO events (subject, name, detail)
    VALUES (:subject, 'lane.paused', CAST(:detail AS jsonb))
""")


def upgrade() -> None:
    op.execute("GRANT SELECT (created_at) ON payment_methods TO autorenew_readonly")
    connection = op.get_bind()
    lanes = connection.execute(text("SELECT DISTINCT lane FROM lane_pauses")).scalars().all()
    subjects = [derived_id("lane", lane) for lane in lanes]
    for lane, by, because, number in connection.execute(_UNTOLD, {"subjects": subjects}).all():
        detail = {"lane": lane, "pause": number, "by": by, "because": because}
        subject = derived_id("lane", lane)
        connection.execute(_TELL, {"subject": subject, "detail": json.dumps(detail)})
