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


# What was taken over is known there by its own name until something is done with it.
_OUR_RESOURCES = text("""
    SELECT s.driver, s.id, s.state, s.resource_id, s.confirmed_until,
        s.order_id IS NOT NULL
            OR EXISTS (SELECT FROM operations AS o WHERE o.service_id = s.id) AS is_known
    FROM services AS s WHERE s.state IN ('active', 'suspended') AND s.driver = ANY(:drivers)
""")
_CONVERGING = text("SELECT subject FROM tasks WHERE name = 'converge'")


def _resources(books: Books) -> Iterator[Offence]:
    """Driver, service, name, state and, where the far side says it, until when it is paid."""
    lists = _far_sides(books).resources()
    ours, names = Counter[tuple[str, str, str, str]](), {}
    until: dict[tuple[str, str], date] = {}
    for row in books.rows(_OUR_RESOURCES, drivers=list(lists)):
        names[row.driver, row.resource_id] = row
        until[row.driver, str(row.id)] = row.confirmed_until
        if row.is_known:
            ours[row.driver, str(row.id), row.resource_id, row.state] += 1
    theirs = Counter[tuple[str, str, str, str]]()
    differing = set()
    for driver, entries in lists.items():
        for entry in entries:
            service, state = entry.service_id, str(entry.state)
            if service is None:
                taken_over = names.get((driver, entry.resource_id))
                if taken_over is not None and not taken_over.is_known:
                    if taken_over.state != state:
                        differing.add(str(taken_over.id))
                    continue
                service = entry.resource_id
            theirs[driver, service, entry.resource_id, state] += 1
            paid_until = until.get((driver, service))
            if None not in (entry.paid_until, paid_until) and entry.paid_until != paid_until:
                differing.add(service)
    for _, service, _, _ in (theirs - ours) + (ours - theirs):
        differing.add(service)
    busy = {str(row.subject) for row in books.rows(_CONVERGING)}
    for service in sorted(differing - busy):
        yield Offence("service" if _is_uuid(service) else "resource", service)


def _is_uuid(name: str) -> bool:
    return len(name) == 36 and name.count("-") == 4 and set(name) <= set("0123456789abcdef-")


CHECKS = (
    Check(
        "far.money",
        "what the gateway took and gave back is what invoices and credit notes say",
        _money,
        whole=True,
    ),
    Check(
        "far.resources",
        "every active service has exactly one live resource, every ended one none",
        _resources,
        whole=True,
    ),
)
