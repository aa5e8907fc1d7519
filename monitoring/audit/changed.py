"""What a run looks at that continues an earlier one: what changed since, and all that it hangs
together with.

The history says of which subjects something changed. To each belong the rows that checks compare
it with. A statement of a check is used as it is: its tables are replaced by their rows of what
belongs together, and its range of ids by the ids that changed. Every join then costs what changed,
and not what there is.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection, TextClause, text

Ids = set[uuid.UUID]

# Who changed first comes first: what was done together is looked at together.
_SUBJECTS = text("""
    SELECT subject FROM events WHERE id > :last_id GROUP BY subject ORDER BY min(id)
""")
_SERVICES = text("""
    SELECT id FROM services WHERE id = ANY(CAST(:changed AS uuid[]))
    UNION SELECT id FROM services WHERE order_id = ANY(CAST(:changed AS uuid[]))
    UNION SELECT service_id FROM request_lines WHERE request_id = ANY(CAST(:changed AS uuid[]))
    UNION SELECT service_id FROM notices WHERE email_id = ANY(CAST(:changed AS uuid[]))
""")
_ORDERS = text("""
    SELECT id FROM orders WHERE id = ANY(CAST(:changed AS uuid[]))
    UNION SELECT order_id FROM payment_requests WHERE id = ANY(CAST(:changed AS uuid[]))
    UNION SELECT order_id FROM services WHERE id = ANY(CAST(:services AS uuid[]))
""")
# A request that was withdrawn has let its lines go: the history still names it.
_REQUESTS = text("""
    SELECT id FROM payment_requests WHERE id = ANY(CAST(:changed AS uuid[]))
    UNION SELECT id FROM payment_requests WHERE order_id = ANY(CAST(:orders AS uuid[]))
    UNION SELECT request_id FROM request_lines
    WHERE service_id = ANY(CAST(:services AS uuid[])) AND released_at IS NULL
    UNION SELECT request_id FROM renewals WHERE service_id = ANY(CAST(:services AS uuid[]))
    UNION SELECT CAST(nullif(detail->>'request', '') AS uuid) FROM events
    WHERE subject = ANY(CAST(:services AS uuid[])) AND name = 'renewal.requested'
""")
_INVOICES = text("""
    SELECT id FROM invoices WHERE request_id = ANY(CAST(:requests AS uuid[]))
    UNION SELECT invoice_id FROM invoice_lines WHERE service_id = ANY(CAST(:services AS uuid[]))
""")
_CREDIT_NOTES = text("""
    SELECT id FROM credit_notes WHERE invoice_id = ANY(CAST(:invoices AS uuid[]))
    UNION SELECT credit_note_id FROM credit_note_lines
    WHERE invoice_id = ANY(CAST(:invoices AS uuid[]))
""")
_EMAILS = text("""
    SELECT id FROM emails WHERE id = ANY(CAST(:changed AS uuid[]))
    UNION SELECT email_id FROM notices WHERE service_id = ANY(CAST(:services AS uuid[]))
""")
# Rows that the changed ones are compared with: other services of the same order, request or e-mail,
# and the subjects of tasks.
_AROUND = text("""
    SELECT id FROM services WHERE order_id = ANY(CAST(:orders AS uuid[]))
    UNION SELECT service_id FROM request_lines WHERE request_id = ANY(CAST(:requests AS uuid[]))
    UNION SELECT service_id FROM notices WHERE email_id = ANY(CAST(:emails AS uuid[]))
    UNION SELECT next_subject FROM services WHERE id = ANY(CAST(:services AS uuid[]))
""")
_CUSTOMERS = text("""
    SELECT customer_id FROM services WHERE id = ANY(CAST(:context AS uuid[]))
    UNION SELECT customer_id FROM orders WHERE id = ANY(CAST(:context AS uuid[]))
    UNION SELECT customer_id FROM payment_requests WHERE id = ANY(CAST(:context AS uuid[]))
    UNION SELECT customer_id FROM emails WHERE id = ANY(CAST(:context AS uuid[]))
""")
_METHODS = text("""
    SELECT payment_method_id FROM services WHERE id = ANY(CAST(:services AS uuid[]))
    UNION SELECT payment_method_id FROM orders WHERE id = ANY(CAST(:orders AS uuid[]))
    UNION SELECT payment_method_id FROM payment_requests WHERE id = ANY(CAST(:requests AS uuid[]))
    UNION SELECT payment_method_id FROM charges WHERE request_id = ANY(CAST(:requests AS uuid[]))
    UNION SELECT payment_method_id FROM customers WHERE id = ANY(CAST(:customers AS text[]))
""")

# A common table expression hides the table of its name; ``public.`` in a check names all of it.
# The role of the audit may not read a payment method's token.
_NARROWED = """
WITH
customers AS NOT MATERIALIZED (
    SELECT * FROM public.customers WHERE id = ANY(CAST(:customers AS text[]))),
agreements AS NOT MATERIALIZED (
    SELECT * FROM public.agreements WHERE customer_id = ANY(CAST(:customers AS text[]))),
payment_methods AS NOT MATERIALIZED (
    SELECT id, customer_id, expires_on, gateway, created_at FROM public.payment_methods
    WHERE id = ANY(CAST(:methods AS uuid[]))),
orders AS NOT MATERIALIZED (
    SELECT * FROM public.orders WHERE id = ANY(CAST(:orders AS uuid[]))),
order_lines AS NOT MATERIALIZED (
    SELECT * FROM public.order_lines WHERE order_id = ANY(CAST(:orders AS uuid[]))),
services AS NOT MATERIALIZED (
    SELECT * FROM public.services WHERE id = ANY(CAST(:services AS uuid[]))),
renewals AS NOT MATERIALIZED (
    SELECT * FROM public.renewals WHERE service_id = ANY(CAST(:services AS uuid[]))),
operations AS NOT MATERIALIZED (
    SELECT * FROM public.operations WHERE service_id = ANY(CAST(:services AS uuid[]))),
payment_requests AS NOT MATERIALIZED (
    SELECT * FROM public.payment_requests WHERE id = ANY(CAST(:requests AS uuid[]))),
request_lines AS NOT MATERIALIZED (
    SELECT * FROM public.request_lines WHERE request_id = ANY(CAST(:requests AS uuid[]))),
charges AS NOT MATERIALIZED (
    SELECT * FROM public.charges WHERE request_id = ANY(CAST(:requests AS uuid[]))),
invoices AS NOT MATERIALIZED (
    SELECT * FROM public.invoices WHERE id = ANY(CAST(:invoices AS uuid[]))),
invoice_lines AS NOT MATERIALIZED (
    SELECT * FROM public.invoice_lines WHERE invoice_id = ANY(CAST(:invoices AS uuid[]))),
credit_notes AS NOT MATERIALIZED (
    SELECT * FROM public.credit_notes WHERE id = ANY(CAST(:credit_notes AS uuid[]))),
credit_note_lines AS NOT MATERIALIZED (
    SELECT * FROM public.credit_note_lines WHERE invoice_id = ANY(CAST(:invoices AS uuid[]))),
refunds AS NOT MATERIALIZED (
    SELECT * FROM public.refunds WHERE credit_note_id = ANY(CAST(:credit_notes AS uuid[]))),
notices AS NOT MATERIALIZED (
    SELECT * FROM public.notices WHERE service_id = ANY(CAST(:services AS uuid[]))),
emails AS NOT MATERIALIZED (
    SELECT * FROM public.emails WHERE customer_id = ANY(CAST(:customers AS text[]))),
tasks AS NOT MATERIALIZED (
    SELECT * FROM public.tasks WHERE subject = ANY(CAST(:context AS uuid[]))),
events AS NOT MATERIALIZED (
    SELECT * FROM public.events WHERE subject = ANY(CAST(:context AS uuid[])))
SELECT * FROM (
"""
_RANGE, _CHANGED = "BETWEEN :low AND :high", "= ANY(CAST(:focus AS uuid[]))"


@dataclass(frozen=True, slots=True)
class Changed:
    """
    Attributes:
        focus: ids of what is looked at: subjects that changed, with their orders, services,
            requests, documents and e-mails.
        context: these, and ids of what they are compared with.
        customers: whose all that is.
        orders, services, requests, invoices, credit_notes, methods: the context by its kinds;
            what a subject was that is not there is not known, so it is in each.
    """

    focus: list[uuid.UUID]
    context: list[uuid.UUID]
    customers: list[str]
    orders: list[uuid.UUID]
    services: list[uuid.UUID]
    requests: list[uuid.UUID]
    invoices: list[uuid.UUID]
    credit_notes: list[uuid.UUID]
    methods: list[uuid.UUID]

    @classmethod
    def of(cls, tx: Connection, subjects: Sequence[uuid.UUID]) -> "Changed":
        """What belongs to some subjects."""

        def ids(statement: TextClause, **of: Iterable[object]) -> Ids:
            given = {name: list(values) for name, values in of.items()}
            return {id_ for id_ in tx.execute(statement, given).scalars() if id_ is not None}

        services = ids(_SERVICES, changed=subjects)
        orders = ids(_ORDERS, changed=subjects, services=services)
        requests = ids(_REQUESTS, changed=subjects, orders=orders, services=services)
        invoices = ids(_INVOICES, requests=requests, services=services)
        credit_notes = ids(_CREDIT_NOTES, invoices=invoices)
        emails = ids(_EMAILS, changed=subjects, services=services)
        found = services | orders | requests | invoices | credit_notes | emails
        around = ids(_AROUND, orders=orders, requests=requests, emails=emails, services=services)
        focus, context = {*subjects, *found}, {*subjects, *found, *around}
        customers: set[str] = set(tx.execute(_CUSTOMERS, {"context": list(context)}).scalars())
        customers.discard(None)
        methods = ids(
            _METHODS, services=services, orders=orders, requests=requests, customers=customers
        )
        gone = set(subjects) - found
        return cls(
            focus=sorted(focus | methods),
            context=sorted(context | methods),
            customers=sorted(customers),
            orders=sorted(orders | gone),
            services=sorted(services | around | gone),
            requests=sorted(requests | gone),
            invoices=sorted(invoices | gone),
            credit_notes=sorted(credit_notes | gone),
            methods=sorted(methods | gone),
        )


def subjects_since(tx: Connection, last_id: int) -> list[uuid.UUID]:
    """Subjects of all events after one, in the order in which they first changed."""
    return list(tx.execute(_SUBJECTS, {"last_id": last_id}).scalars())


@cache
def narrowed(statement: str) -> TextClause:
    """The statement of a check, over what changed alone.

    Raises:
        ValueError: it names its range otherwise than as ``BETWEEN :low AND :high``.
    """
    changed = statement.replace(_RANGE, _CHANGED)
    if ":low" in changed or ":high" in changed:
        raise ValueError("a range of ids is to be said as BETWEEN :low AND :high")
    return text(f"{_NARROWED}{changed}\n) AS found")
