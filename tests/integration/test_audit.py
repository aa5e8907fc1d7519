"""The audit notices every broken invariant."""

from typing import Any

import pytest
from sqlalchemy import text

from monitoring.audit import CHECKS, audit
from producers.control import failed
from tests.conftest import Database
from tests.integration.test_billing import assert_clean, run
from tests.support.given import line, order
from tests.support.operators import give_up

# Renewals that say they are on a payment request; one that is; an e-mail that was begun with a
# notice in it.
ASKED = """INSERT INTO renewals (service_id, period_number, expires_on, net, currency, request_id)
    SELECT s.id, s.paid_periods + 1, now(), 0, 'EUR', p.id
    FROM services AS s CROSS JOIN payment_requests AS p"""
REQUESTED = f"""UPDATE payment_requests SET order_id = NULL, state = 'open'; {ASKED};
    DELETE FROM request_lines
    WHERE service_id IN (SELECT id FROM services WHERE plan <> 'site')"""
BEGUN = """WITH begun AS (INSERT INTO emails (id, customer_id, day, begun_at)
        VALUES (gen_random_uuid(), 'alice', now(), now()) RETURNING id)
    INSERT INTO notices (service_id, expires_at, kind, email_id)
    SELECT s.id, s.expires_at, 'before-1', begun.id FROM services AS s, begun
    WHERE s.plan = 'site'"""
SUSPENDED = "state = 'suspended', desired = 'suspended', confirmed = 'suspended'"
# A payment method of somebody else.
BOB = """INSERT INTO customers (id, subsidiary, country, language, email)
        VALUES ('bob', 'FR', 'FR', 'fr', 'bob@example.com');
    INSERT INTO payment_methods (id, customer_id, token)
        VALUES ('00000000-0000-0000-0000-000000000b0b', 'bob', 'tok-bob')"""
PAID_BY_BOB = "SET payment_method_id = '00000000-0000-0000-0000-000000000b0b'"
ENQUEUED = """
    INSERT INTO tasks (name, subject, queue, lane, batched)
    VALUES ('price', gen_random_uuid(), 'orders', 'orders', true);
    INSERT INTO batches (id, queue, name, lane, subjects, size, run_at)
    SELECT gen_random_uuid(), queue, name, lane, ARRAY[subject], 1, run_at FROM tasks"""

# What to break, by the invariant that has to notice. Triggers are off: the database itself would
# refuse some of it.
BREAKS = {
    "every line of an accepted order has exactly its quantity of services": [
        "DELETE FROM services WHERE plan = 'site'",
        "UPDATE order_lines SET quantity = 3 WHERE plan = 'site'",
    ],
    "an order's state follows from its services": [
        "UPDATE orders SET state = 'delivered'",
        "UPDATE services SET state = 'cancelled' WHERE plan = 'site'",
        "UPDATE orders SET state = 'paid'",
    ],
    "a cancelled service has its money back": [
        "DELETE FROM credit_note_lines",
        "UPDATE services SET state = 'cancelled' WHERE plan = 'site'",
    ],
    "a credit note is refunded, or a refund is on its way": [
        "DELETE FROM refunds",
        "UPDATE refunds SET amount = amount - 1",
    ],
    "a payment request has at most one successful charge": [
        """INSERT INTO charges (key, request_id, attempt, amount, currency, state)
           SELECT gen_random_uuid(), request_id, 2, amount, currency, state FROM charges""",
    ],
    "a payment method pays for its own customer only": [
        f"{BOB}; UPDATE customers {PAID_BY_BOB} WHERE id = 'alice'",
        f"{BOB}; UPDATE orders {PAID_BY_BOB}",
        f"{BOB}; UPDATE services {PAID_BY_BOB} WHERE plan = 'site'",
        f"{BOB}; UPDATE payment_requests {PAID_BY_BOB}",
        f"{BOB}; UPDATE charges {PAID_BY_BOB}",
        "UPDATE payment_methods SET customer_id = 'carol'",
        "DELETE FROM payment_methods",
    ],
    "an order, its services and what is asked for them are one customer's": [
        f"{BOB}; UPDATE orders SET customer_id = 'bob'",
        "UPDATE services SET customer_id = 'bob' WHERE plan = 'site'",
        "UPDATE payment_requests SET customer_id = 'bob'",
    ],
    "a request is paid if and only if money was taken for it": [
        "UPDATE charges SET amount = amount - 1",
        "UPDATE charges SET state = 'declined'",
        "UPDATE payment_requests SET state = 'voided'",
    ],
    "every paid request has its invoice, of the same amount": [
        "UPDATE invoices SET total = total + 1",
        "DELETE FROM credit_note_lines; DELETE FROM refunds; DELETE FROM credit_notes;"
        " DELETE FROM invoice_lines; DELETE FROM invoices",
    ],
    "an invoice is the sum of its lines": ["UPDATE invoice_lines SET net = net + 1"],
    "the tax of an invoice is that on its taxable amounts": [
        "UPDATE invoice_lines SET tax = tax + 1",
        "UPDATE invoice_lines SET tax_rate = 5",
    ],
    "credit notes of all lines of an invoice give back its tax": [
        "UPDATE credit_note_lines SET tax = tax * 2",
    ],
    "a credit note is the sum of its lines, at its invoice's amounts": [
        "UPDATE credit_note_lines SET tax = tax - 1",
        "UPDATE credit_note_lines SET net = net - 1",
        "UPDATE credit_notes SET total = total - 1",
    ],
    "numbers of a series are 1..n, dates never go back": [
        "UPDATE invoices SET number = 2",
        "UPDATE credit_notes SET number = 7",
    ],
    "a series' counter is its last number": ["UPDATE invoice_series SET last_number = 9"],
    "every paid period of a service is on one line of a paid request, and of its invoice": [
        "UPDATE services SET paid_periods = 2 WHERE plan = 'site'",
        "UPDATE invoice_lines SET period_number = 7 WHERE service_id = (SELECT id FROM services"
        " WHERE plan = 'site')",
    ],
    "a delivered service expires at its anchor plus its paid periods": [
        "UPDATE services SET expires_at = expires_at + interval '1 hour' WHERE plan = 'site'",
    ],
    "what should be is what was confirmed, or is being worked on": [
        "UPDATE services SET desired = 'suspended' WHERE plan = 'site'",
        "UPDATE services SET state = 'delivering' WHERE plan = 'site'",
        "UPDATE services SET confirmed_until = confirmed_until - 1 WHERE plan = 'site'",
    ],
    "a service's state agrees with what was confirmed": [
        "UPDATE services SET confirmed = 'absent' WHERE plan = 'site'",
        "UPDATE services SET state = 'suspended' WHERE plan = 'site'",
    ],
    "what was begun and not decided is asked about": [
        "UPDATE charges SET state = 'started'",
        "UPDATE refunds SET state = 'unknown'",
        "UPDATE operations SET state = 'pending' WHERE kind = 'create' AND state = 'done'",
    ],
    "what is not at rest has a task": [
        "UPDATE orders SET state = 'accepted'",
        "UPDATE orders SET state = 'priced'",
        "UPDATE payment_requests SET state = 'open'",
    ],
    "a task is in exactly one batch, or waits for its time or for a person": [
        f"{ENQUEUED}; DELETE FROM batches",
        f"{ENQUEUED}; UPDATE tasks SET batched = false",
        f"{ENQUEUED}; INSERT INTO batches (id, queue, name, lane, subjects, size, run_at)"
        " SELECT gen_random_uuid(), queue, name, lane, subjects, size, run_at FROM batches",
    ],
    "an open request of renewals is on services that are there, and they on it": [
        "UPDATE payment_requests SET order_id = NULL, state = 'open'",
        ASKED,  # which is paid
        f"{REQUESTED}; UPDATE services SET desired = 'absent' WHERE plan = 'site'",
        f"{REQUESTED}; UPDATE request_lines SET released_at = now()",
    ],
    "a renewal is asked for, priced and announced in its subsidiary's currency": [
        f"{REQUESTED}; UPDATE payment_requests SET currency = 'CHF'",
        f"{REQUESTED}; UPDATE renewals SET currency = 'CHF'",
        f"{REQUESTED}; UPDATE renewals SET announced = 1, announced_currency = 'CHF',"
        " announced_at = now()",
    ],
    "what renews has a next step, or a task that is about it": [
        "INSERT INTO rollouts SELECT brand, subsidiary, now() FROM services WHERE plan = 'site'",
        "INSERT INTO rollouts SELECT brand, subsidiary, now() FROM services WHERE plan = 'site';"
        " UPDATE services SET mode = 'manual', next_step = NULL, next_step_at = NULL",
        "INSERT INTO rollouts SELECT brand, subsidiary, now() FROM services WHERE plan = 'site';"
        " UPDATE services SET mode = 'stop', next_step = NULL, next_step_at = NULL",
    ],
    "what is not in the rollout was never reminded, charged or ended by itself": [
        "UPDATE services SET next_step = 'remind', next_step_at = now() WHERE plan = 'site'",
    ],
    "an e-mail that was sent says what was claimed for it": [
        "INSERT INTO emails (id, customer_id, day, sent_at)"
        " VALUES (gen_random_uuid(), 'alice', now(), now())",
    ],
    "an e-mail that was begun was sent, or is being sent": [BEGUN],
    "what an operator has suspended is to stay so": [
        "UPDATE services SET held_at = now() WHERE plan = 'site'",
    ],
    "what is suspended was not paid, or an operator has it so": [
        f"UPDATE services SET {SUSPENDED} WHERE plan = 'site'",
    ],
    "what was suspended or terminated for want of payment was told so before": [
        f"UPDATE services SET {SUSPENDED} WHERE plan = 'site'",
        f"UPDATE services SET {SUSPENDED} WHERE plan = 'site'; {BEGUN}",
        f"UPDATE services SET {SUSPENDED}, held_at = now(), suspended_at = now()"
        " WHERE plan = 'site'",
    ],
    "what was paid for and refused is given back": ["UPDATE request_lines SET refused_at = now()"],
}


@pytest.fixture
def books(embedded: Any, database: Database) -> Any:
    """An order of two lines: one was delivered, one refunded."""
    fleet = embedded([{"fault": "refuse", "operation": "create", "plan": "vm"}])
    run(fleet, database, order("k-1", line("site"), line("vm")))
    with database.engine("api").begin() as tx:
        give_up(tx, failed.list_failed(tx)[0].subject)
    fleet.wait_until_idle(30)
    assert_clean(fleet, database)
    return fleet


def test_every_invariant_has_a_test_that_breaks_it() -> None:
    assert BREAKS.keys() == CHECKS.keys()


def test_the_audit_notices_what_breaks_each_invariant(books: Any, database: Database) -> None:
    unnoticed = []
    for invariant, statements in BREAKS.items():
        for statement in statements:
            with database.owner.connect() as tx:
                tx.exec_driver_sql("SET session_replication_role = replica")
                tx.exec_driver_sql("DROP INDEX charges_succeeded")
                tx.exec_driver_sql(statement)
                found = [str(value) for value in tx.execute(text(CHECKS[invariant])).scalars()]
                tx.rollback()
            if not found:
                unnoticed.append((invariant, statement))

    assert unnoticed == []


@pytest.mark.parametrize(
    ("statement", "invariant"),
    [
        ("DELETE FROM book WHERE kind = 'refund'", "what the gateway took and gave back"),
        ("UPDATE book SET amount = amount + 1", "what the gateway took and gave back"),
        ("UPDATE resources SET state = 'gone'", "every active service has exactly one"),
        (
            "INSERT INTO resources (driver, service_id, resource_id, state)"
            " SELECT driver, service_id, 'again', state FROM resources",
            "every active service has exactly one",
        ),
    ],
)
def test_audit_compares_our_books_with_those_of_the_gateway_and_the_infrastructure(
    books: Any, database: Database, statement: str, invariant: str
) -> None:
    books.simulator.simulator.store._db.execute(statement)

    with database.owner.connect() as tx:
        broken = [f.invariant for f in audit(tx, books.books()) if f.broken]

    assert len(broken) == 1
    assert broken[0].startswith(invariant)
