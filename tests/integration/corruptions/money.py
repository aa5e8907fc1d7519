"""Corruptions of charges, refunds and payment methods."""

from tests.integration.corruptions.subjects import (
    BOB_PAYS,
    first_request,
    open_request,
    order_of,
    renewal,
    service,
)

MONEY = (
    (
        "a request is charged twice",
        """
        DROP INDEX charges_succeeded;
        INSERT INTO charges (key, request_id, attempt, amount, currency, state, decided_at)
        SELECT gen_random_uuid(), request_id, 9, amount, currency, state, decided_at
        FROM charges WHERE state = 'succeeded'""",
        "money.once",
    ),
    (
        "a charge took less",
        "UPDATE charges SET amount = amount - 1 WHERE state = 'succeeded'",
        "money.taken",
    ),
    (
        "a charge took another currency",
        "UPDATE charges SET currency = 'PLN' WHERE state = 'succeeded'",
        "money.taken",
    ),
    (
        "a charge that succeeded was declined",
        f"UPDATE charges SET state = 'declined' WHERE request_id = {first_request('nils')}",
        "money.taken",
    ),
    (
        "a charge is deleted",
        f"DELETE FROM charges WHERE request_id = {first_request('nils')}",
        "money.taken",
    ),
    (
        "a charge that was declined succeeded",
        "UPDATE charges SET state = 'succeeded'"
        f" WHERE attempt = 1 AND request_id = {open_request('kurt')}",
        "money.taken",
    ),
    (
        "an open request is paid",
        f"UPDATE payment_requests SET state = 'paid' WHERE id = {open_request('kurt')}",
        "money.taken",
    ),
    (
        "a charge was decided on another day than it paid",
        "UPDATE charges SET decided_at = decided_at + interval '1 hour'"
        f" WHERE request_id = {first_request('nils')}",
        "money.paid",
    ),
    (
        "a paid request was of another method",
        f"UPDATE payment_requests SET {BOB_PAYS} WHERE id = {first_request('nils')}",
        "money.paid",
    ),
    (
        "a paid request was of no method",
        f"UPDATE payment_requests SET payment_method_id = NULL WHERE id = {renewal('tina')}",
        "money.paid",
    ),
    (
        "a declined attempt is deleted",
        f"DELETE FROM charges WHERE attempt = 1 AND request_id = {open_request('kurt')}",
        "money.charges",
    ),
    (
        "an attempt has a number beyond the next",
        "UPDATE charges SET attempt = 7"
        f" WHERE attempt = 1 AND request_id = {first_request('nils')}",
        "money.charges",
    ),
    (
        "an earlier attempt is in doubt",
        "UPDATE charges SET state = 'unknown', decided_at = NULL"
        f" WHERE attempt = 1 AND request_id = {open_request('kurt')}",
        "money.charges",
    ),
    (
        "a charge was decided before it began",
        "UPDATE charges SET decided_at = started_at - interval '1 day' WHERE state = 'succeeded'",
        "money.charges",
    ),
    (
        "a charge that succeeded was never decided",
        "UPDATE charges SET decided_at = NULL WHERE state = 'succeeded'",
        "money.charges",
    ),
    (
        "a declined charge was of another amount",
        f"UPDATE charges SET amount = 1 WHERE request_id = {open_request('kurt')}",
        "money.charged",
    ),
    (
        "a charge is of a request that is not there",
        "UPDATE charges SET request_id = gen_random_uuid() WHERE state = 'unknown'",
        "money.charged",
    ),
    (
        "a customer pays with another's method",
        f"UPDATE customers SET {BOB_PAYS} WHERE id = 'nils'",
        "money.methods",
    ),
    (
        "an order is paid with another's method",
        f"UPDATE orders SET {BOB_PAYS} WHERE id = {order_of('nils')}",
        "money.methods",
    ),
    (
        "a service is paid with another's method",
        f"UPDATE services SET {BOB_PAYS} WHERE id = {service('nils')}",
        "money.methods",
    ),
    (
        "a request is paid with another's method",
        f"UPDATE payment_requests SET {BOB_PAYS} WHERE id = {open_request('kurt')}",
        "money.methods",
    ),
    (
        "a charge was of another's method",
        f"UPDATE charges SET {BOB_PAYS} WHERE request_id = {first_request('nils')}",
        "money.methods",
    ),
    (
        "a method changes hands",
        "UPDATE payment_methods SET customer_id = 'bob' WHERE customer_id = 'nils'",
        "money.methods",
    ),
    (
        "a method is deleted",
        "DELETE FROM payment_methods WHERE customer_id = 'nils'",
        "money.methods",
    ),
    (
        "services lose their payment methods",
        "UPDATE services SET payment_method_id = NULL",
        "money.method",
    ),
    (
        "an order's request loses its payment method",
        f"UPDATE payment_requests SET payment_method_id = NULL WHERE id = {first_request('rosa')}",
        "money.method",
    ),
    (
        "a customer loses the saved method",
        "UPDATE customers SET payment_method_id = NULL WHERE id = 'nils'",
        "money.method",
    ),
    ("refunds are deleted", "DELETE FROM refunds", "money.refunded"),
    ("a refund was declined", "UPDATE refunds SET state = 'declined'", "money.refunded"),
    ("a refund gave less", "UPDATE refunds SET amount = amount - 1", "money.refunds"),
    ("a refund gave another currency", "UPDATE refunds SET currency = 'PLN'", "money.refunds"),
    (
        "a refund is of another charge",
        "UPDATE refunds SET charge_key = (SELECT key FROM charges"
        f" WHERE request_id = {first_request('nils')})",
        "money.refunds",
    ),
    ("a refund has a number beyond the next", "UPDATE refunds SET attempt = 4", "money.refunds"),
    (
        "a refund that succeeded was never decided",
        "UPDATE refunds SET decided_at = NULL",
        "money.refunds",
    ),
)
