"""What is said of an id: an order by its key, a service with its plan, a document by its number."""

import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, text

from monitoring.audit.checks import Finding, Offence

_NAMES = {
    "order": text("""
        SELECT id, 'order ' || key || ' of ' || upstream FROM orders WHERE id = ANY(:ids)"""),
    "service": text("""
        SELECT id, 'service ' || id || ' (' || plan || ' of ' || customer_id || ')'
        FROM services WHERE id = ANY(:ids)"""),
    "payment request": text("""
        SELECT id, 'payment request ' || id || ' of ' || customer_id
        FROM payment_requests WHERE id = ANY(:ids)"""),
    "invoice": text("""
        SELECT id, 'invoice ' || series || '-' || lpad(CAST(number AS text), 7, '0')
        FROM invoices WHERE id = ANY(:ids)"""),
    "credit note": text("""
        SELECT id, 'credit note ' || series || '-' || lpad(CAST(number AS text), 7, '0')
        FROM credit_notes WHERE id = ANY(:ids)"""),
    "e-mail": text("""
        SELECT id, 'e-mail ' || id || ' to ' || customer_id FROM emails WHERE id = ANY(:ids)"""),
}


def name(tx: Connection, findings: Sequence[Finding]) -> None:
    """Say what the offences of some findings are."""
    named: dict[Offence, str] = {}
    for kind, statement in _NAMES.items():
        ids = {
            uuid.UUID(offence.id)
            for finding in findings
            for offence in finding.offences
            if offence.kind == kind
        }
        if ids:
            for found, said in tx.execute(statement, {"ids": list(ids)}):
                named[Offence(kind, str(found))] = said
    for finding in findings:
        finding.named = [named.get(o, f"{o.kind} {o.id}") for o in finding.offences]
