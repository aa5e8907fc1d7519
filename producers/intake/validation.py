"""Whether an order can be sold as it is: complete, every problem with its code and its path."""

import uuid
from collections.abc import Iterable, Iterator, Set
from datetime import date, datetime
from typing import NamedTuple

from schemas.catalogue import Catalogue, Plan, Subsidiary
from schemas.clock import local_date
from schemas.messages import LineDocument, OrderDocument, Problem
from schemas.rules import sellable
from schemas.rules.sellable import Obstacle
from schemas.values import Period

MAX_SERVICES = 1000
"""In one order: each is a row, a task and a call, and an order is priced and paid for whole."""


class KnownCustomer(NamedTuple):
    """A customer of earlier orders, or of an import."""

    country: str
    vat_number: str | None
    payment_method_id: uuid.UUID | None
    realm: str | None


def problems_of(
    order: OrderDocument,
    catalogue: Catalogue,
    now: datetime,
    known: KnownCustomer | None = None,
) -> list[Problem]:
    """Everything that keeps this order from being accepted; empty if nothing does.

    Args:
        known: its customer, if there is one already: what it orders is renewed for them as they
            are, not as the order says.
    """
    problems: list[Problem] = []
    subsidiary = catalogue.subsidiaries.get(order.customer.subsidiary)
    if subsidiary is None:  # what does not depend on it is still said
        message = f"not one of {', '.join(sorted(catalogue.subsidiaries))}"
        problems.append(_problem("subsidiary_unknown", "customer.subsidiary", message))
    else:
        customer, today = order.customer, local_date(now, subsidiary.timezone)
        problems += _at(
            "customer",
            sellable.of_customer(subsidiary, customer.country, customer.vat_number, today),
        )
        if known is not None and not problems:
            problems += _of_known(known, subsidiary, today)
    services = sum(line.quantity for line in order.lines)
    if services > MAX_SERVICES:
        message = f"{services} services, at most {MAX_SERVICES} can be ordered at once"
        problems.append(_problem("order_too_large", "lines", message))
    accepted = {(agreement.contract, agreement.version) for agreement in order.contracts}
    for number, line in enumerate(order.lines):
        path = f"lines.{number}"
        plan = catalogue.plan(line.plan)
        if plan is None:
            problems.append(_problem("plan_unknown", f"{path}.plan", f"no plan {line.plan!r}"))
            continue
        problems += _of_line(line, plan, subsidiary, path)
        problems += _of_contract(plan, accepted, catalogue)
    return list({(p.code, p.path): p for p in problems}.values())


def _of_known(known: KnownCustomer, subsidiary: Subsidiary, today: date) -> Iterator[Problem]:
    for obstacle in sellable.of_customer(subsidiary, known.country, known.vat_number, today):
        message = f"{obstacle.message}, and the customer is known to live in {known.country}"
        yield _problem(obstacle.code, "customer.subsidiary", message)


def _of_line(
    line: LineDocument, plan: Plan, subsidiary: Subsidiary | None, path: str
) -> Iterator[Problem]:
    period = None
    try:
        period = Period.parse(line.period)
    except ValueError as error:
        yield _problem("period_invalid", f"{path}.period", str(error))
    if subsidiary is not None:
        yield from _at(path, sellable.of_period(plan, subsidiary.code, period))
    yield from _at(path, sellable.of_quantity(plan, line.quantity))
    yield from _at(path, sellable.of_options(plan, line.configuration))


def _of_contract(
    plan: Plan, accepted: Set[tuple[str, int]], catalogue: Catalogue
) -> Iterator[Problem]:
    """The current version has to be among those the customer accepted."""
    contract = sellable.contract_of(plan, catalogue)
    if contract is None or (contract.code, contract.version) in accepted:
        return
    path = f"contracts.{contract.code}"
    wanted = f"{plan.code} needs {contract.code} version {contract.version} ({contract.url})"
    if any(code == contract.code for code, _ in accepted):
        yield _problem("contract_outdated", path, wanted)
    else:
        yield _problem("contract_missing", path, wanted)


def _at(path: str, obstacles: Iterable[Obstacle]) -> Iterator[Problem]:
    for obstacle in obstacles:
        yield _problem(obstacle.code, f"{path}.{obstacle.about}", obstacle.message)


def _problem(code: str, path: str, message: str) -> Problem:
    return Problem(code=code, path=path, message=message)
