"""Whom and what corruptions are about: as SQL, by the customers of ``tests.support.everything``."""

from typing import NamedTuple


class Corruption(NamedTuple):
    """
    Attributes:
        name: what was done.
        statement: how.
        code: of the check that notices.
    """

    name: str
    statement: str
    code: str


def service(customer: str) -> str:
    return f"(SELECT id FROM services WHERE customer_id = '{customer}' ORDER BY id LIMIT 1)"


def order_of(customer: str) -> str:
    return f"(SELECT id FROM orders WHERE customer_id = '{customer}')"


def first_request(customer: str) -> str:
    return f"(SELECT id FROM payment_requests WHERE order_id = {order_of(customer)})"


def renewal(customer: str) -> str:
    """A payment request of a renewal that was paid."""
    return (
        f"(SELECT id FROM payment_requests WHERE customer_id = '{customer}'"
        " AND order_id IS NULL AND state = 'paid' LIMIT 1)"
    )


def open_request(customer: str) -> str:
    return (
        f"(SELECT id FROM payment_requests WHERE customer_id = '{customer}'"
        " AND order_id IS NULL AND state = 'open' LIMIT 1)"
    )


def invoice(customer: str) -> str:
    return f"(SELECT id FROM invoices WHERE request_id = {first_request(customer)})"


def note(reason: str) -> str:
    return f"(SELECT id FROM credit_notes WHERE reason = '{reason}' ORDER BY id LIMIT 1)"


BOB_PAYS = "payment_method_id = (SELECT id FROM payment_methods WHERE customer_id = 'bob')"
EMAIL = (
    "(SELECT n.email_id FROM notices AS n JOIN emails AS e ON e.id = n.email_id"
    " WHERE n.kind = 'before-15' AND e.sent_at IS NOT NULL"
    f" AND n.service_id = {service('ivan')} LIMIT 1)"
)
# A sent e-mail about an expiry that is still to come.
CURRENT = (
    "(SELECT n.email_id FROM notices AS n JOIN services AS s ON s.id = n.service_id"
    " AND s.expires_at = n.expires_at JOIN emails AS e ON e.id = n.email_id"
    " WHERE e.sent_at IS NOT NULL AND s.desired <> 'absent' ORDER BY n.email_id LIMIT 1)"
)
REFUSED = "(SELECT id FROM emails WHERE refused_at IS NOT NULL ORDER BY id LIMIT 1)"
SAM = "(SELECT id FROM orders WHERE key = 'sam')"
# Everything of one customer, as if the order had never come; the history is left.
WITHOUT_ALICE = f"""
    DELETE FROM credit_note_lines WHERE invoice_id IN
        (SELECT id FROM invoices WHERE customer_id = 'alice');
    DELETE FROM invoice_lines WHERE invoice_id IN
        (SELECT id FROM invoices WHERE customer_id = 'alice');
    DELETE FROM invoices WHERE customer_id = 'alice';
    DELETE FROM charges WHERE request_id IN
        (SELECT id FROM payment_requests WHERE customer_id = 'alice');
    DELETE FROM request_lines WHERE request_id IN
        (SELECT id FROM payment_requests WHERE customer_id = 'alice');
    DELETE FROM payment_requests WHERE customer_id = 'alice';
    DELETE FROM notices WHERE service_id IN (SELECT id FROM services WHERE customer_id = 'alice');
    DELETE FROM emails WHERE customer_id = 'alice';
    DELETE FROM renewals WHERE service_id IN (SELECT id FROM services WHERE customer_id = 'alice');
    DELETE FROM operations WHERE service_id IN
        (SELECT id FROM services WHERE customer_id = 'alice');
    DELETE FROM services WHERE customer_id = 'alice';
    DELETE FROM order_lines WHERE order_id = {order_of("alice")};
    DELETE FROM orders WHERE customer_id = 'alice'"""


def swapped(table: str, one: str, other: str) -> str:
    """Lines of two customers change places; through a third, since a period is billed once."""
    a, b = service(one), service(other)
    nobody = "CAST('00000000-0000-0000-0000-000000000000' AS uuid)"
    change = f"UPDATE {table} SET service_id = %s WHERE period_number = 1 AND service_id = %s"
    return "; ".join((change % (nobody, a), change % (a, b), change % (b, nobody)))
