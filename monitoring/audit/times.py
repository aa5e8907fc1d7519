"""Moments: none lies in the future of the business, and none before there was a fleet."""

from monitoring.audit.checks import Since, sql

# Clocks of hosts differ by less than ten minutes. NULLs do not count in greatest and least.
CHECKS = (
    sql(
        "times.orders",
        "nothing about orders and money is dated in the future, or before there was a fleet",
        """
        SELECT 'order', id FROM orders
        WHERE id BETWEEN :low AND :high AND (
            greatest(accepted_at, ended_at) > CAST(:latest AS timestamptz) + interval '10 minutes'
            OR accepted_at < '2010-01-01' OR ended_at < accepted_at)
        UNION ALL
        SELECT 'payment request', id FROM payment_requests
        WHERE id BETWEEN :low AND :high AND (greatest(created_at, closed_at, given_up_at)
                > CAST(:latest AS timestamptz) + interval '10 minutes'
            OR created_at < '2010-01-01')
        UNION ALL
        SELECT 'payment request', request_id FROM request_lines
        WHERE request_id BETWEEN :low AND :high AND greatest(released_at, refused_at)
            > CAST(:latest AS timestamptz) + interval '10 minutes'
        UNION ALL
        SELECT 'charge', key FROM charges
        WHERE request_id BETWEEN :low AND :high AND (
            greatest(started_at, decided_at) > CAST(:latest AS timestamptz) + interval '10 minutes'
            OR started_at < '2010-01-01')
        UNION ALL
        SELECT 'refund', key FROM refunds
        WHERE credit_note_id BETWEEN :low AND :high AND (
            greatest(started_at, decided_at) > CAST(:latest AS timestamptz) + interval '10 minutes'
            OR started_at < '2010-01-01')""",
    ),
    sql(
        "times.services",
        "nothing about services is dated in the future, or before there was a fleet",
        """
        SELECT 'service', s.id FROM services AS s
        WHERE s.id BETWEEN :low AND :high AND (
            greatest(suspended_at, held_at, taken_over_at, mode_changed_at)
                > CAST(:latest AS timestamptz) + interval '10 minutes'
            OR least(suspended_at, held_at, taken_over_at, mode_changed_at) < '2010-01-01'
            OR (order_id IS NOT NULL
                AND anchor > CAST(CAST(:latest AS timestamptz) + interval '1 day' AS date)))
        UNION ALL
        SELECT 'operation', key FROM operations
        WHERE service_id BETWEEN :low AND :high AND (
            greatest(started_at, ended_at) > CAST(:latest AS timestamptz) + interval '10 minutes'
            OR started_at < '2010-01-01')
        UNION ALL
        SELECT 'service', service_id FROM renewals
        WHERE service_id BETWEEN :low AND :high AND (
            greatest(announced_at, raised_at, dearer_at, asked_at, declined_at, last_declined_at)
                > CAST(:latest AS timestamptz) + interval '10 minutes'
            OR least(announced_at, raised_at, dearer_at, asked_at, declined_at, last_declined_at)
                < '2010-01-01'
            OR raised_at > announced_at)""",
    ),
    sql(
        "times.mails",
        "nothing about e-mails is dated in the future, or before there was a fleet",
        """
        SELECT 'e-mail', id FROM emails
        WHERE id BETWEEN :low AND :high AND (
            greatest(created_at, begun_at, sent_at, refused_at, given_up_at)
                > CAST(:latest AS timestamptz) + interval '10 minutes'
            OR least(created_at, begun_at, sent_at, refused_at, given_up_at) < '2010-01-01')""",
    ),
    sql(
        "times.history",
        "no event is dated in the future, or before there was a fleet",
        """
        SELECT 'event', id FROM events
        WHERE subject BETWEEN :low AND :high
          AND (at > CAST(:db_now AS timestamptz) + interval '10 minutes' OR at < '2010-01-01')""",
    ),
    sql(
        "times.customers",
        "nothing about customers, and what they pay with, is dated in the future",
        """
        SELECT 'customer', id FROM customers
        WHERE updated_at > CAST(:latest AS timestamptz) + interval '10 minutes'
        UNION ALL
        SELECT 'customer', customer_id FROM agreements
        WHERE accepted_at > CAST(:latest AS timestamptz) + interval '10 minutes'
        UNION ALL
        SELECT 'payment method', CAST(id AS text) FROM payment_methods
        WHERE created_at > CAST(:latest AS timestamptz) + interval '10 minutes'
           OR created_at < '2010-01-01'""",
    ),
    # A heartbeat that is trusted for long would switch the guard off.
    sql(
        "times.fleet",
        "the fleet was not seen in the future, and is not trusted for more than a year",
        """
        SELECT 'heartbeat', CAST(identity AS text) FROM heartbeat
        WHERE beat_at > CAST(:db_now AS timestamptz) + interval '10 minutes'
           OR business_at > CAST(:latest AS timestamptz) + interval '10 minutes'
           OR trusted_until > beat_at + interval '366 days'
        UNION ALL
        SELECT 'ends of', CAST(hour AS text) FROM destructions
        WHERE hour > CAST(:latest AS timestamptz) + interval '10 minutes' OR services < 0
        UNION ALL
        SELECT 'lane', lane FROM lane_pauses
        WHERE paused_at > CAST(:db_now AS timestamptz) + interval '10 minutes'
        UNION ALL
        -- A far side that asks for more is asked again after an hour all the same.
        SELECT 'open lane', lane FROM lane_breakers
        WHERE opened_at > CAST(:db_now AS timestamptz) + interval '10 minutes'
           OR probe_at > CAST(:db_now AS timestamptz) + interval '2 hours'
        UNION ALL
        SELECT 'limit of lane', lane FROM lane_limits
        WHERE filled_at > CAST(:db_now AS timestamptz) + interval '10 minutes'
           OR tokens > burst OR tokens < -burst
        UNION ALL
        SELECT 'forecast of', CAST(made_on AS text) FROM forecasts
        WHERE made_on > CAST(CAST(:latest AS timestamptz) + interval '1 day' AS date)
        UNION ALL
        SELECT 'catalogue', CAST(version AS text) FROM catalogue_version
        WHERE loaded_at > CAST(:db_now AS timestamptz) + interval '10 minutes'
        UNION ALL
        SELECT 'rejected document', CAST(id AS text) FROM rejected_documents
        WHERE received_at > CAST(:db_now AS timestamptz) + interval '10 minutes' OR times < 1
        UNION ALL
        SELECT 'change of', subsidiary FROM subsidiary_changes
        WHERE greatest(planned_at, applied_at)
            > CAST(:latest AS timestamptz) + interval '10 minutes'""",
        since=Since.ONCE,
    ),
)
