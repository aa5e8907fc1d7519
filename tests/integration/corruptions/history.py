"""Corruptions of events, and of moments."""

from tests.integration.corruptions.subjects import (
    EMAIL,
    REFUSED,
    SAM,
    WITHOUT_ALICE,
    first_request,
    note,
    open_request,
    order_of,
    service,
)

HISTORY = (
    ("the history is deleted", "DELETE FROM events", "history.orders"),
    (
        "an order was never accepted",
        f"DELETE FROM events WHERE name = 'order.accepted' AND subject = {SAM}",
        "history.orders",
    ),
    (
        "an order was never refused",
        "DELETE FROM events WHERE name = 'order.refused'",
        "history.orders",
    ),
    (
        "an order was never priced",
        f"DELETE FROM events WHERE name = 'order.priced' AND subject = {order_of('nils')}",
        "history.orders",
    ),
    ("an order never ended", "DELETE FROM events WHERE name = 'order.cancelled'", "history.orders"),
    (
        "an order was paid twice",
        "INSERT INTO events (subject, name) SELECT subject, name FROM events"
        " WHERE name = 'order.paid'",
        "history.orders",
    ),
    (
        "an order came from elsewhere",
        f"UPDATE orders SET upstream = 'partner' WHERE id = {order_of('nils')}",
        "history.orders",
    ),
    (
        "an order was accepted last year",
        "UPDATE orders SET accepted_at ="
        f" accepted_at - interval '1 year' WHERE id = {order_of('nils')}",
        "history.orders",
    ),
    ("a whole paid order is deleted, but for its history", WITHOUT_ALICE, "history.subjects"),
    (
        "a whole paid order is deleted, with its history",
        f"""DELETE FROM events WHERE subject IN (SELECT id FROM services
            WHERE customer_id = 'alice' UNION SELECT {order_of("alice")}
            UNION SELECT id FROM payment_requests WHERE customer_id = 'alice');
        {WITHOUT_ALICE}""",
        "numbers.gapless",
    ),
    (
        "an unpaid order is deleted, but for its history",
        f"DELETE FROM orders WHERE id = {SAM}",
        "history.subjects",
    ),
    (
        "an order's document was another one",
        "UPDATE orders SET body_hash = sha256('x')",
        "history.orders",
    ),
    (
        "the document of a refused order was another one",
        "UPDATE orders SET body_hash = sha256('x') WHERE state = 'refused'",
        "history.orders",
    ),
    (
        "an order that is not priced yet is cheaper",
        f"UPDATE order_lines SET renewal = 1 WHERE order_id = {SAM}",
        "history.amounts",
    ),
    (
        "an order that is not priced yet is for more",
        f"UPDATE order_lines SET quantity = 9 WHERE order_id = {SAM}",
        "history.amounts",
    ),
    (
        "an order was paid with another amount",
        "UPDATE events SET detail = detail ||"
        """ '{"amount": "1.00 EUR"}' WHERE name = 'order.paid'""",
        "history.amounts",
    ),
    (
        "an order was priced otherwise",
        "UPDATE events SET detail = detail ||"
        """ '{"total": "1.00 EUR"}' WHERE name = 'order.priced'""",
        "history.amounts",
    ),
    (
        "an unpaid order is made cheaper, with all its lines and sums",
        f"""
        UPDATE order_lines SET renewal = 100 WHERE order_id = {order_of("rosa")};
        UPDATE request_lines SET net = 100, tax = 20 WHERE request_id = {first_request("rosa")};
        UPDATE payment_requests SET net = 100, tax = 20, total = 120
        WHERE id = {first_request("rosa")}""",
        "history.amounts",
    ),
    (
        "the history of an order says nothing of it",
        "UPDATE events SET detail = NULL WHERE name = 'order.accepted'",
        "history.orders",
    ),
    (
        "an order ended on another day",
        f"UPDATE orders SET ended_at = ended_at + interval '2 hours' WHERE id = {order_of('nils')}",
        "history.moments",
    ),
    (
        "a request was made on another day",
        "UPDATE payment_requests SET created_at = created_at"
        f" - interval '3 days' WHERE id = {first_request('nils')}",
        "history.moments",
    ),
    (
        "a renewal was asked for on another day",
        "UPDATE payment_requests SET created_at ="
        f" created_at - interval '3 days' WHERE id = {open_request('kurt')}",
        "history.moments",
    ),
    (
        "a charge was declined on another day",
        "UPDATE charges SET decided_at = decided_at + interval '3 days' WHERE state = 'declined'",
        "history.moments",
    ),
    (
        "an operation was done on another day",
        "UPDATE operations SET ended_at = ended_at"
        f" + interval '3 days' WHERE service_id = {service('nils')}",
        "history.moments",
    ),
    (
        "a mode was changed on another day",
        "DELETE FROM virtual_clock; UPDATE services"
        f" SET mode_changed_at = mode_changed_at - interval '3 days' WHERE id = {service('judy')}",
        "history.business",
    ),
    (
        "a service is held since another day",
        "DELETE FROM virtual_clock; UPDATE services"
        f" SET held_at = held_at - interval '3 days' WHERE id = {service('hans')}",
        "history.business",
    ),
    (
        "an e-mail was sent on another day",
        "DELETE FROM virtual_clock; UPDATE emails"
        f" SET sent_at = sent_at - interval '30 days' WHERE id = {EMAIL}",
        "history.business",
    ),
    ("a refund is said to be made by hand", "UPDATE refunds SET by_hand = true", "history.hands"),
    (
        "a renewal was never told of",
        "DELETE FROM events WHERE name = 'renewal.requested'",
        "history.renewed",
    ),
    (
        "a refused renewal was never told of",
        "DELETE FROM events WHERE name = 'renewal.refused'",
        "history.renewed",
    ),
    (
        "a request that was taken apart is deleted",
        "DELETE FROM payment_requests WHERE state = 'voided' AND order_id IS NULL",
        "history.requests",
    ),
    (
        "declines are never told of",
        "DELETE FROM events WHERE name = 'charge.declined'",
        "history.charges",
    ),
    (
        "a declined order's charges are deleted",
        f"DELETE FROM charges WHERE request_id = {first_request('poor')}",
        "history.charges",
    ),
    (
        "a credit note is never told of",
        "DELETE FROM events WHERE name = 'service.credited'",
        "history.credits",
    ),
    (
        "a refund is never told of",
        "DELETE FROM events WHERE name = 'refund.succeeded'",
        "history.credits",
    ),
    (
        "a credit note is deleted, with its lines, refund and counter",
        f"""
        DELETE FROM refunds WHERE credit_note_id = {note("ended")};
        DELETE FROM credit_note_lines WHERE credit_note_id = {note("ended")};
        DELETE FROM credit_notes WHERE id = {note("ended")}""",
        "history.credits",
    ),
    (
        "operations are never told of",
        "DELETE FROM events WHERE name = 'operation.done'",
        "history.operations",
    ),
    (
        "an operation that was done is deleted",
        "DELETE FROM operations WHERE kind = 'extend'",
        "history.operations",
    ),
    (
        "an event is told before it happened",
        "UPDATE events SET at = at - interval '1 day' WHERE name = 'service.delivered'",
        "history.sequence",
    ),
)

TIMES = (
    (
        "an order was accepted in 2099",
        f"UPDATE orders SET accepted_at = '2099-01-01' WHERE id = {SAM}",
        "times.orders",
    ),
    (
        "an order ended before it was accepted",
        "UPDATE orders SET ended_at = accepted_at - interval '1 hour' WHERE ended_at IS NOT NULL",
        "times.orders",
    ),
    (
        "a request was made in 2099",
        f"UPDATE payment_requests SET created_at = '2099-01-01' WHERE id = {open_request('kurt')}",
        "times.orders",
    ),
    (
        "a request was closed in 2099",
        f"UPDATE payment_requests SET closed_at = '2099-01-01' WHERE id = {first_request('nils')}",
        "times.orders",
    ),
    (
        "a line was freed in 2099",
        "UPDATE request_lines SET released_at = '2099-01-01' WHERE released_at IS NOT NULL",
        "times.orders",
    ),
    (
        "a charge was decided in 2099",
        "UPDATE charges SET decided_at = '2099-01-01' WHERE state = 'succeeded'",
        "times.orders",
    ),
    ("a refund began in 1970", "UPDATE refunds SET started_at = '1970-01-01'", "times.orders"),
    (
        "a service is suspended since 2099",
        f"UPDATE services SET suspended_at = '2099-01-01' WHERE id = {service('ivan')}",
        "times.services",
    ),
    (
        "a service is held since 2099",
        f"UPDATE services SET held_at = '2099-01-01' WHERE id = {service('hans')}",
        "times.services",
    ),
    (
        "a mode was changed in 2099",
        "UPDATE services SET mode_changed_at = '2099-01-01' WHERE mode_changed_at IS NOT NULL",
        "times.services",
    ),
    (
        "a service was taken over in 2099",
        "UPDATE services SET taken_over_at = '2099-01-01' WHERE taken_over_at IS NOT NULL",
        "times.services",
    ),
    (
        "a service begins in 2099",
        f"UPDATE services SET anchor = '2099-01-01' WHERE id = {service('nils')}",
        "times.services",
    ),
    (
        "an operation ended in 2099",
        "UPDATE operations SET ended_at = '2099-01-01'",
        "times.services",
    ),
    (
        "an amount was announced in 2099",
        "UPDATE renewals SET announced_at = '2099-01-01'",
        "times.services",
    ),
    (
        "a renewal was declined in 2099",
        "UPDATE renewals SET last_declined_at = '2099-01-01' WHERE declines > 0",
        "times.services",
    ),
    (
        "an amount rose before it was announced",
        "UPDATE renewals SET raised_at = announced_at + interval '1 day'",
        "times.services",
    ),
    ("an e-mail was sent in 2099", "UPDATE emails SET sent_at = '2099-01-01'", "times.mails"),
    (
        "an e-mail was refused in 2099",
        f"UPDATE emails SET refused_at = '2099-01-01' WHERE id = {REFUSED}",
        "times.mails",
    ),
    (
        "an event happened in 2099",
        "UPDATE events SET at = '2099-01-01' WHERE name = 'order.refused'",
        "times.history",
    ),
    (
        "an event happened in 1970",
        "UPDATE events SET at = '1970-01-01' WHERE name = 'order.refused'",
        "times.history",
    ),
    (
        "a customer changes in 2099",
        "UPDATE customers SET updated_at = '2099-01-01'",
        "times.customers",
    ),
    (
        "a payment method will be known in 2099",
        "UPDATE payment_methods SET created_at = '2099-01-01'",
        "times.customers",
    ),
    (
        "a contract was accepted in 2099",
        "UPDATE agreements SET accepted_at = '2099-01-01'",
        "times.customers",
    ),
    (
        "the fleet is trusted until 2099",
        "UPDATE heartbeat SET trusted_until = '2099-01-01'",
        "times.fleet",
    ),
    ("the fleet was seen in 2099", "UPDATE heartbeat SET beat_at = '2099-01-01'", "times.fleet"),
    (
        "a forecast was made in 2099",
        "UPDATE forecasts SET made_on = '2099-01-01'"
        " WHERE ctid = (SELECT min(ctid) FROM forecasts)",
        "times.fleet",
    ),
    (
        "the catalogue was loaded in 2099",
        "UPDATE catalogue_version SET loaded_at = '2099-01-01'",
        "times.fleet",
    ),
    (
        "a document was rejected in 2099",
        "INSERT INTO rejected_documents (id, upstream, door,"
        " code, problems, body, received_at) VALUES (gen_random_uuid(), 'shop', 'file', 'x', '[]',"
        " '', '2099-01-01')",
        "times.fleet",
    ),
    (
        "a lane is paused since 2099",
        "UPDATE lane_pauses SET paused_at = '2099-01-01'",
        "times.fleet",
    ),
    (
        "a lane is open, and tried again in 2099",
        "INSERT INTO lane_breakers (lane, queue, cause, reason, probe_at)"
        " VALUES ('mail', 'reminders', 'failing', 'x', '2099-01-01')",
        "times.fleet",
    ),
    (
        "a lane is open since 2099",
        "INSERT INTO lane_breakers (lane, queue, cause, reason, probe_at, opened_at)"
        " VALUES ('mail', 'reminders', 'failing', 'x', now(), '2099-01-01')",
        "times.fleet",
    ),
    (
        "a lane may send nothing before 2099",
        "INSERT INTO lane_limits (lane, per_second, burst, filled_at)"
        " VALUES ('mail', 1, 1, '2099-01-01')",
        "times.fleet",
    ),
    (
        "a lane owes a million tasks to its limit",
        "INSERT INTO lane_limits (lane, per_second, burst, tokens) VALUES ('mail', 1, 1, -1000000)",
        "times.fleet",
    ),
    (
        "a change of a subsidiary was applied in 2099",
        "UPDATE subsidiary_changes SET applied_at = '2099-01-01'",
        "times.fleet",
    ),
)
