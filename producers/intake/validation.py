"""Whether an order can be sold as it is: complete, every problem with its code and its path."""

from collections.abc import Iterator, Set
from datetime import datetime

from schemas.catalogue import Catalogue, Plan, Subsidiary
from schemas.clock import local_date
from schemas.errors import DataError
from schemas.messages import CustomerDocument, LineDocument, OrderDocument, Problem
from schemas.rules import tax
from schemas.values import Period

MAX_SERVICES = 1000
"""In one order: each is a row, a task and a call, and an order is priced and paid for whole."""


def problems_of(order: OrderDocument, catalogue: Catalogue, now: datetime) -> list[Problem]:
    """Everything that keeps this order from being accepted; empty if nothing does."""
    problems: list[Problem] = []
    subsidiary = catalogue.subsidiaries.get(order.customer.subsidiary)
    if subsidiary is None:  # what does not depend on it is still said
        known = ", ".join(sorted(catalogue.subsidiaries))
        message = f"not one of {known}"
        problems.append(_problem("subsidiary_unknown", "customer.subsidiary", message))
    else:
        problems += _of_tax(order.customer, subsidiary, now)
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
        problems += _of_period(line, plan, subsidiary, path)
        problems += _of_line(line, plan, path)
        problems += _of_contract(plan, accepted, catalogue)
    return list({(p.code, p.path): p for p in problems}.values())


def _of_tax(customer: CustomerDocument, subsidiary: Subsidiary, now: datetime) -> Iterator[Problem]:
    try:
        tax.determine(
            subsidiary=subsidiary,
            customer_country=customer.country,
            vat_number=customer.vat_number,
            on=local_date(now, subsidiary.timezone),
        )
    except DataError as error:
        field = "vat_number" if error.code == "vat_number_invalid" else "country"
        yield _problem(error.code, f"customer.{field}", str(error))


def _of_period(
    line: LineDocument, plan: Plan, subsidiary: Subsidiary | None, path: str
) -> Iterator[Problem]:
    periods = plan.periods(subsidiary.code) if subsidiary else []
    if subsidiary and not periods:
        message = f"{plan.code} is not sold in {subsidiary.code}"
        yield _problem("plan_not_sold", f"{path}.plan", message)
    try:
        period = Period.parse(line.period)
    except ValueError as error:
        yield _problem("period_invalid", f"{path}.period", str(error))
    else:
        if periods and period not in periods:
            offered = ", ".join(map(str, periods))
            yield _problem("period_not_offered", f"{path}.period", f"offered: {offered}")


def _of_line(line: LineDocument, plan: Plan, path: str) -> Iterator[Problem]:
    if not plan.quantity_min <= line.quantity <= plan.quantity_max:
        bounds = f"{plan.quantity_min} to {plan.quantity_max}"
        yield _problem("quantity_out_of_bounds", f"{path}.quantity", f"must be {bounds}")
    for name, option in plan.options.items():
        value = line.configuration.get(name)
        where = f"{path}.configuration.{name}"
        if value is None:
            if option.required:
                yield _problem("option_missing", where, f"{plan.code} needs it")
        elif option.values and value not in option.values:
            yield _problem("option_invalid", where, f"one of {', '.join(option.values)}")
    for name in sorted(line.configuration.keys() - plan.options.keys()):
        yield _problem(
            "option_unknown", f"{path}.configuration.{name}", f"{plan.code} has no such option"
        )


def _of_contract(
    plan: Plan, accepted: Set[tuple[str, int]], catalogue: Catalogue
) -> Iterator[Problem]:
    """The current version has to be among those the customer accepted."""
    contract = catalogue.contract(plan.contract) if plan.contract else None
    if contract is None or (contract.code, contract.version) in accepted:
        return
    path = f"contracts.{contract.code}"
    wanted = f"{plan.code} needs {contract.code} version {contract.version} ({contract.url})"
    if any(code == contract.code for code, _ in accepted):
        yield _problem("contract_outdated", path, wanted)
    else:
        yield _problem("contract_missing", path, wanted)


def _problem(code: str, path: str, message: str) -> Problem:
    return Problem(code=code, path=path, message=message)
