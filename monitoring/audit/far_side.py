"""Our books beside those of the far sides: gateways and infrastructures."""

from collections import Counter
from collections.abc import Iterator
from datetime import date

from sqlalchemy import text

from monitoring.audit.checks import Books, Check, Offence
from schemas.books import FarSides

_OUR_MONEY = text("""
    SELECT 'charge', c.key, i.total, i.currency FROM invoices AS i
    JOIN charges AS c ON c.request_id = i.request_id AND c.state = 'succeeded'
    LEFT JOIN payment_methods AS m ON m.id = c.payment_method_id
    WHERE i.total > 0 AND coalesce(m.gateway, 'default') = ANY(:gateways)
    UNION ALL
    SELECT 'refund', f.key, n.total, n.currency FROM credit_notes AS n
    JOIN refunds AS f ON f.credit_note_id = n.id AND f.state = 'succeeded' AND NOT f.by_hand
    JOIN charges AS c ON c.key = f.charge_key
    LEFT JOIN payment_methods AS m ON m.id = c.payment_method_id
    WHERE coalesce(m.gateway, 'default') = ANY(:gateways)
""")
# A charge that is still asked about is neither taken nor not taken.
_UNDECIDED = text("""
    SELECT key FROM charges WHERE state IN ('started', 'unknown')
    UNION ALL SELECT key FROM refunds WHERE state IN ('started', 'unknown')
""")


def _far_sides(books: Books) -> FarSides:
    if books.far_sides is None:
        raise ValueError("there is no far side to compare with")
    return books.far_sides


def _money(books: Books) -> Iterator[Offence]:
    theirs_of = _far_sides(books).money()
    theirs = Counter(
        (entry.kind, entry.key, entry.amount.amount, entry.amount.currency)
        for book in theirs_of.values()
        for entry in book
    )
    ours = Counter(
        (kind, str(key), amount, currency)
        for kind, key, amount, currency in books.rows(_OUR_MONEY, gateways=list(theirs_of))
    )
    undecided = {str(row.key) for row in books.rows(_UNDECIDED)}
    differing = (theirs - ours) + (ours - theirs)
    for kind, key in sorted({(kind, key) for kind, key, _, _ in differing}):
        if key not in undecided:
            yield Offence(kind, key)


# The far side knows a service that was taken over by its own name, until the first operation on it
# succeeds. One that was refused, is in doubt, or was done by a person does not count.
_OUR_RESOURCES = text("""
    SELECT s.driver, s.id, s.state, s.resource_id, s.confirmed_until,
        s.order_id IS NULL AND NOT EXISTS (SELECT FROM operations AS o
            WHERE o.service_id = s.id AND o.state = 'done' AND o.reason IS DISTINCT FROM 'by_hand')
            AS is_by_name
    FROM services AS s WHERE s.state IN ('active', 'suspended') AND s.driver = ANY(:drivers)
""")
_CONVERGING = text("SELECT subject FROM tasks WHERE name = 'converge'")


_Resource = tuple[str, str, str, str]
"""Driver, service, name, state."""


def _resources(books: Books) -> Iterator[Offence]:
    """Driver, service, name, state and, where the far side says it, until when it is paid.

    What is known there by its own name only may be listed by that, or by our id if an operation
    that is in doubt has arrived; or not at all, if nobody has found it there so far: `reconcile`
    tells that.
    """
    lists = _far_sides(books).resources()
    ours, known = Counter[_Resource](), Counter[_Resource]()
    names: dict[tuple[str, str], str] = {}
    until: dict[tuple[str, str], date] = {}
    for row in books.rows(_OUR_RESOURCES, drivers=list(lists)):
        service = str(row.id)
        until[row.driver, service] = row.confirmed_until
        resource = (row.driver, service, row.resource_id, row.state)
        if row.is_by_name:
            names[row.driver, row.resource_id] = service
            known[resource] += 1
        else:
            ours[resource] += 1
    theirs = Counter[_Resource]()
    differing = set()
    for driver, entries in lists.items():
        for entry in entries:
            by_name = names.get((driver, entry.resource_id))
            service = entry.service_id or by_name or entry.resource_id
            theirs[driver, service, entry.resource_id, str(entry.state)] += 1
            # How long it lasts under its own name was agreed with another system.
            paid_until = until.get((driver, service)) if entry.service_id else None
            if None not in (entry.paid_until, paid_until) and entry.paid_until != paid_until:
                differing.add(service)
    listed = {service for _, service, _, _ in theirs}
    ours.update({r: n for r, n in known.items() if r[1] in listed})
    for _, service, _, _ in (theirs - ours) + (ours - theirs):
        differing.add(service)
    busy = {str(row.subject) for row in books.rows(_CONVERGING)}
    for service in sorted(differing - busy):
        yield Offence("service" if _is_uuid(service) else "resource", service)


def _is_uuid(name: str) -> bool:
    return len(name) == 36 and name.count("-") == 4 and set(name) <= set("0123456789abcdef-")


MONEY = Check(
    "far.money",
    "what the gateway took and gave back is what invoices and credit notes say",
    _money,
    whole=True,
)
CHECKS = (
    MONEY,
    Check(
        "far.resources",
        "every active service has exactly one live resource, every ended one none",
        _resources,
        whole=True,
    ),
)
