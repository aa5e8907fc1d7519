"""Corruptions of the e-mails that tell of orders."""

from tests.integration.corruptions.subjects import order_of

_OF_NILS = f"order_id = {order_of('nils')}"

DELIVERIES = (
    (
        "a delivery is told by no e-mail",
        f"DELETE FROM order_emails WHERE {_OF_NILS}",
        "deliveries.told",
    ),
    (
        "an e-mail about an order leaves a service out",
        f"UPDATE order_emails SET delivered = delivered[2:] WHERE order_id = {order_of('alice')}",
        "deliveries.told",
    ),
    (
        "an order that was given up is told by no e-mail",
        f"UPDATE order_emails SET given_up = '{{}}' WHERE order_id = {order_of('mary')}",
        "deliveries.told",
    ),
    (
        "an e-mail about an order was never sent",
        f"UPDATE order_emails SET sent_at = NULL WHERE {_OF_NILS}",
        "deliveries.sent",
    ),
    (
        "a service is told of twice",
        "INSERT INTO order_emails (id, order_id, number, delivered, given_up, begun_at, sent_at)"
        " SELECT gen_random_uuid(), order_id, 2, delivered, given_up, begun_at, sent_at"
        f" FROM order_emails WHERE {_OF_NILS}",
        "deliveries.once",
    ),
    (
        "an e-mail about an order tells of another order's service",
        f"UPDATE order_emails SET delivered = (SELECT delivered FROM order_emails"
        f" WHERE order_id = {order_of('ivan')}) WHERE {_OF_NILS}",
        "deliveries.once",
    ),
    (
        "an e-mail about an order tells of nothing",
        f"UPDATE order_emails SET delivered = '{{}}' WHERE {_OF_NILS}",
        "deliveries.once",
    ),
    (
        "a delivery is told as given up",
        f"UPDATE order_emails SET given_up = delivered, delivered = '{{}}' WHERE {_OF_NILS}",
        "deliveries.truth",
    ),
    (
        "an e-mail about an order was sent before it was begun",
        f"UPDATE order_emails SET sent_at = begun_at - interval '1 hour' WHERE {_OF_NILS}",
        "deliveries.facts",
    ),
    (
        "an e-mail about an order has no first one before it",
        f"UPDATE order_emails SET number = 2 WHERE {_OF_NILS}",
        "deliveries.facts",
    ),
    (
        "a sent e-mail about an order is given up",
        f"UPDATE order_emails SET given_up_at = now(), refused_at = now() WHERE {_OF_NILS}",
        "deliveries.facts",
    ),
    (
        "the history forgets that an order was told of",
        f"DELETE FROM events WHERE name = 'delivery.sent' AND subject = {order_of('nils')}",
        "deliveries.history",
    ),
    (
        "the history tells twice of an e-mail about an order",
        "INSERT INTO events (subject, name, detail) SELECT subject, name, detail FROM events"
        f" WHERE name = 'delivery.sent' AND subject = {order_of('nils')}",
        "deliveries.history",
    ),
    (
        "an e-mail about an order has another Message-ID",
        f"UPDATE order_emails SET id = gen_random_uuid() WHERE {_OF_NILS}",
        "deliveries.history",
    ),
)
