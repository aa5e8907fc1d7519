"""The customer's one click: stop, resume, renew now, change the mode, accept a contract, change
the payment method.

Commands change facts and have the next step decided again; the scheduler hands over what is due.
Each may be repeated: what is so already stays so. A command is done whole or not at all.

One that says as of when it was decided, as those of links do, gives way to a change of the mode
since then: a link in an old e-mail does not undo what the customer decided later.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, text

from producers import history
from producers.history import Event
from producers.intake import customer
from producers.intake.agreements import Agreement, Method, agree, save_methods
from producers.intake.documents import Refused
from producers.intake.realms import may_touch, not_yours
from producers.renewals import next_steps, traces
from producers.renewals.next_steps import Renewable
from schemas.catalogue import Catalogue
from schemas.messages import (
    AcceptCommand,
    AgreementDocument,
    CommandDocument,
    CustomerCommand,
    ModeCommand,
    PaymentMethodCommand,
    Problem,
    RenewCommand,
    ResumeCommand,
    StopCommand,
    last_day,
)
from schemas.rules import lifecycle, sellable
from schemas.settings import DEFAULT_GATEWAY
from schemas.tables import renewals
from schemas.tables.bulk import Bulk, insert
from schemas.values import DELIVERED, Money, RenewalMode, ResourceState, ServiceId, ServiceState


def apply(
    tx: Connection,
    command: CommandDocument,
    catalogue: Catalogue,
    now: datetime,
    *,
    realm: str | None = None,
    trace: str | None = None,
) -> bool:
    """Do what a customer asks for.

    Args:
        realm: of the upstream that sends it; None: an operator.
        trace: the W3C trace context in which it is.

    Returns:
        Whether anything is different now; False: it was so already.

    Raises:
        Refused: it cannot be done; the caller rolls back.
    """
    whose = tx.execute(_REALM, {"id": command.customer}).first()
    if whose is not None and not may_touch(realm, whose.realm):
        raise Refused([not_yours("customer")])
    match command:
        case StopCommand():
            return _change_mode(tx, command, command.services, RenewalMode.STOP, catalogue, now)
        case ResumeCommand():
            return _change_mode(tx, command, command.services, None, catalogue, now)
        case ModeCommand():
            mode = RenewalMode(command.mode)
            return _change_mode(tx, command, command.services, mode, catalogue, now)
        case RenewCommand():
            return _renew(tx, command, catalogue, now, trace)
        case AcceptCommand():
            return _accept(tx, command.customer, command.contracts, catalogue, now)
        case PaymentMethodCommand():
            return _change_method(tx, command, catalogue, now)
        case CustomerCommand():
            return customer.change(tx, command, catalogue, now)


_REALM = text("SELECT realm FROM customers WHERE id = :id")

_OWNED = text("""
    SELECT id, state, desired FROM services
    WHERE id = ANY(:ids) AND customer_id = :customer ORDER BY id FOR NO KEY UPDATE
""")


def _hold(
    tx: Connection, customer: str, ids: Sequence[str], catalogue: Catalogue
) -> list[Renewable]:
    """The customer's services, locked; in the order asked for.

    Raises:
        Refused: one is not theirs, not delivered yet, or has ended.
    """
    wanted = [uuid.UUID(service) for service in ids]
    found = {row.id: row for row in tx.execute(_OWNED, {"ids": wanted, "customer": customer})}
    problems = []
    for number, service in enumerate(wanted):
        row, path = found.get(service), f"services.{number}"
        if row is None:
            problems.append(_problem("service_unknown", path, f"{customer} has no {service}"))
        elif row.state in (ServiceState.PENDING, ServiceState.DELIVERING):
            problems.append(_problem("service_not_delivered", path, f"{service} is on its way"))
        elif row.desired == ResourceState.ABSENT or row.state not in DELIVERED:
            problems.append(_problem("service_ended", path, f"{service} has ended: order anew"))
    if problems:
        raise Refused(problems)
    held: dict[uuid.UUID, Renewable] = {
        service.id: service for service in next_steps.load(tx, wanted, catalogue)
    }
    return [held[service] for service in dict.fromkeys(wanted)]


@dataclass(frozen=True, slots=True)
class ModeRow:
    id: ServiceId
    mode: RenewalMode


_set_modes = Bulk(
    ModeRow,
    """
    UPDATE services AS s SET mode = r.mode, mode_changed_at = :now,
        mode_before = CASE WHEN r.mode = 'stop' THEN s.mode END
    FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, mode text) WHERE s.id = r.id
    """,
)
_NOT_ASKED = text("""
    UPDATE renewals AS r SET asked_at = NULL FROM services AS s
    WHERE s.id = ANY(:ids) AND r.service_id = s.id AND r.period_number = s.paid_periods + 1
      AND r.asked_at IS NOT NULL
""")
_BEFORE = text("SELECT id, mode_before FROM services WHERE id = ANY(:ids)")


def _change_mode(
    tx: Connection,
    command: StopCommand | ResumeCommand | ModeCommand,
    ids: Sequence[str],
    mode: RenewalMode | None,
    catalogue: Catalogue,
    now: datetime,
) -> bool:
    """To a mode, or (None) back to what it was before it was stopped."""
    services = _hold(tx, command.customer, ids, catalogue)
    if mode is None:
        stopped = [s.id for s in services if s.view.mode is RenewalMode.STOP]
        new = {
            row.id: RenewalMode(row.mode_before or RenewalMode.AUTOMATIC)
            for row in tx.execute(_BEFORE, {"ids": stopped})
        }
    else:
        new = {s.id: mode for s in services if s.view.mode is not mode}
    as_of = command.as_of if isinstance(command, StopCommand | ResumeCommand) else None
    _refuse_outdated([s for s in services if s.id in new], ids, as_of)
    if not new:
        return False
    _set_modes(tx, (ModeRow(service, mode) for service, mode in new.items()), now=now)
    # The later click counts: what was asked for before it is asked for again, or not.
    quiet = [service for service, mode in new.items() if mode is not RenewalMode.AUTOMATIC]
    tx.execute(_NOT_ASKED, {"ids": quiet})
    next_steps.decide_again(tx, new, catalogue, now)
    history.record(tx, (Event(s, "mode.changed", {"mode": mode}) for s, mode in new.items()))
    return True


def _refuse_outdated(services: Iterable[Renewable], ids: Sequence[str], as_of: str | None) -> None:
    """Refuse to change services whose mode was changed since the customer saw them."""
    if as_of is None:
        return
    try:
        seen_at = datetime.fromisoformat(as_of)
    except ValueError:
        raise Refused([_problem("date_invalid", "as_of", "not a moment")]) from None
    later = {s.id: s.view.mode_changed_at for s in services if s.view.mode_changed_at is not None}
    problems = []
    for number, service in enumerate(map(uuid.UUID, ids)):
        changed_at = later.get(ServiceId(service))
        if changed_at is not None and changed_at > seen_at:
            message = f"its mode was changed at {changed_at:%Y-%m-%d %H:%M} UTC: ask again"
            problems.append(_problem("link_outdated", f"services.{number}", message))
    if problems:
        raise Refused(problems)


@dataclass(frozen=True, slots=True)
class AskedRow:
    """A renewal that its customer asked for."""

    service_id: ServiceId
    period_number: int
    expires_on: date
    net: Money
    currency: str
    asked_at: datetime


_asked = insert(
    AskedRow,
    renewals,
    "ON CONFLICT (service_id, period_number) DO UPDATE SET asked_at = excluded.asked_at",
)


def _renew(
    tx: Connection, command: RenewCommand, catalogue: Catalogue, now: datetime, trace: str | None
) -> bool:
    seen = {uuid.UUID(s.id): s.expires_on for s in command.services}
    if command.contracts:
        _accept(tx, command.customer, command.contracts, catalogue, now)
    services = _hold(tx, command.customer, [s.id for s in command.services], catalogue)
    problems, wanted = [], []
    for number, service in enumerate(services):
        path = f"services.{number}"
        try:
            expires_on = date.fromisoformat(seen[service.id])
        except ValueError:
            problems.append(_problem("date_invalid", f"{path}.expires_on", "not a date"))
            continue
        if expires_on < service.view.expires_on:
            continue  # a renewal past what the customer saw was made already
        if found := list(why_not_renewed(service, expires_on, path, catalogue, now)):
            problems += found
        elif not is_asked_already(service):
            wanted.append(service)
    if problems:
        raise Refused(problems)
    stopped = [s for s in wanted if s.view.mode is RenewalMode.STOP]
    _refuse_outdated(stopped, [s.id for s in command.services], command.as_of)
    return _ask(tx, wanted, catalogue, now, trace)


def is_asked_already(service: Renewable) -> bool:
    """Whether it was asked for at the amount that its customer was told last."""
    asked_at, raised_at = service.view.cycle.asked_at, service.view.cycle.raised_at
    return asked_at is not None and (raised_at is None or asked_at >= raised_at)


def why_not_renewed(
    service: Renewable, seen: date, path: str, catalogue: Catalogue, now: datetime
) -> Iterable[Problem]:
    """What keeps a service from being renewed at its customer's wish.

    Args:
        seen: the expiry that the customer saw.
        path: of the service in the document.
    """
    view = service.view
    if seen != view.expires_on:
        message = f"it expires on {view.expires_on}"
        yield _problem("expiry_unknown", f"{path}.expires_on", message)
    if view.starts_at is None or view.starts_at > now:
        brand, subsidiary = service.plan.brand, service.subsidiary.code
        message = f"renewal is not switched on for {brand} in {subsidiary}"
        yield _problem("not_rolled_out", path, message)
    contract = sellable.contract_of(service.plan, catalogue)
    if view.missing_contract is not None and contract is not None:
        message = f"{contract.code} version {contract.version} has to be accepted ({contract.url})"
        yield _problem("contract_missing", f"contracts.{contract.code}", message)
    if service.price is None:
        message = f"{service.plan.code} has no price for {service.period} any more"
        yield _problem("price_gone", path, message)
    if service.payment_method_id is None and not view.is_free:
        yield _problem("payment_method_missing", path, "there is no saved payment method")


def _ask(
    tx: Connection,
    services: Sequence[Renewable],
    catalogue: Catalogue,
    now: datetime,
    trace: str | None = None,
) -> bool:
    """Have services renewed and charged now, together; they are locked."""
    if not services:
        return False
    rows = [
        AskedRow(
            service_id=service.id,
            period_number=service.paid_periods + 1,
            expires_on=service.view.expires_on,
            net=service.price,
            currency=service.currency,
            asked_at=now,
        )
        for service in services
        if service.price is not None
    ]
    _asked(tx, rows)
    traces.begin(tx, [service.id for service in services], "command", parent=trace)
    next_steps.decide_again(tx, [service.id for service in services], catalogue, now)
    history.record(tx, (Event(service.id, "renewal.asked") for service in services))
    return True


def _accept(
    tx: Connection,
    customer: str,
    contracts: Sequence[AgreementDocument],
    catalogue: Catalogue,
    now: datetime,
) -> bool:
    problems = []
    for number, agreed in enumerate(contracts):
        contract, path = catalogue.contract(agreed.contract), f"contracts.{number}"
        if contract is None:
            problems.append(_problem("contract_unknown", path, f"no contract {agreed.contract!r}"))
        elif contract.version != agreed.version:
            message = f"{contract.code} is at version {contract.version} ({contract.url})"
            problems.append(_problem("contract_outdated", path, message))
    if not problems and tx.execute(_KNOWN, {"id": customer}).first() is None:
        problems.append(_problem("customer_unknown", "customer", f"no customer {customer!r}"))
    if problems:
        raise Refused(problems)
    accepted = [Agreement(customer, agreed.contract, agreed.version) for agreed in contracts]
    return bool(agree(tx, accepted, catalogue, now))


_KNOWN = text("SELECT 1 FROM customers WHERE id = :id")
_HELD = text("SELECT 1 FROM customers WHERE id = :id FOR NO KEY UPDATE")
_SAVED = text("""
    UPDATE customers SET payment_method_id = :method, updated_at = now()
    WHERE id = :id AND payment_method_id IS DISTINCT FROM :method
""")
_PAYS = text("""
    UPDATE services SET payment_method_id = :method
    WHERE id = ANY(:ids) AND (payment_method_id IS DISTINCT FROM :method OR :extended)
    RETURNING id
""")
_PAID_BY = text("""
    SELECT id FROM services WHERE customer_id = :customer
      AND state IN ('pending', 'delivering', 'active', 'suspended')
    ORDER BY id FOR NO KEY UPDATE
""")


def _change_method(
    tx: Connection, command: PaymentMethodCommand, catalogue: Catalogue, now: datetime
) -> bool:
    customer, month = command.customer, command.payment_method_expires
    # The customer first, then services: as an order does that accepts a contract.
    if tx.execute(_HELD, {"id": customer}).first() is None:
        raise Refused([_problem("customer_unknown", "customer", f"no customer {customer!r}")])
    method = Method(
        customer,
        command.payment_method,
        last_day(month) if month else None,
        command.payment_gateway or DEFAULT_GATEWAY,
    )
    extended = saved = method.id in save_methods(tx, [method])
    if command.services is None:
        ids = list(tx.execute(_PAID_BY, {"customer": customer}).scalars())
        saved |= tx.execute(_SAVED, {"id": customer, "method": method.id}).rowcount > 0
    else:
        ids = [service.id for service in _hold(tx, customer, command.services, catalogue)]
    parameters = {"ids": ids, "method": method.id, "extended": extended}
    changed = list(tx.execute(_PAYS, parameters).scalars())
    if not changed:
        return saved
    history.record(tx, (Event(service, "payment_method.changed") for service in changed))
    services = next_steps.load(tx, changed, catalogue)
    unpaid = [
        s
        for s in services
        if _is_unpaid(s)
        and not _waits_after_a_rise(s, now)
        and not s.view.is_behind(s.plan.policy, now)
    ]
    _ask(tx, unpaid, catalogue, now)
    retried = {service.id for service in unpaid}
    # Its request, which is not read here, asks for another method from now on.
    rest = (
        s.with_cycle(method_changed=s.request_id is not None)
        for s in services
        if s.id not in retried
    )
    next_steps.decide(tx, rest, now)
    return True


def _waits_after_a_rise(service: Renewable, now: datetime) -> bool:
    """Whether its customer was told of a higher amount and still has days before it is charged.

    A new payment method does not ask for that amount; ``renew`` does.
    """
    cycle, policy = service.view.cycle, service.plan.policy
    if service.view.mode is not RenewalMode.AUTOMATIC:
        return False
    return cycle.is_to_be_told_more or lifecycle.after_a_rise(cycle, policy, now) > now


def _is_unpaid(service: Renewable) -> bool:
    """Whether its payment was asked for, by itself or by its customer, and has not come; and
    its customer has not changed the mode since."""
    view = service.view
    declined_at, changed_at = view.cycle.last_declined_at, view.mode_changed_at
    if view.mode is RenewalMode.MANUAL and declined_at and changed_at and changed_at > declined_at:
        return False
    alive = view.desired is not ResourceState.ABSENT and view.mode is not RenewalMode.STOP
    asked_for = service.request_id is not None or view.cycle.last_declined_at is not None
    may_be = view.missing_contract is None and view.starts_at is not None
    return alive and asked_for and may_be and service.price is not None


def _problem(code: str, path: str, message: str) -> Problem:
    return Problem(code=code, path=path, message=message)
