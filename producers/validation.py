"""Whether an order can be sold as it is: complete, every problem with its code and its path."""

from collections.abc import Iterator
from datetime import datetime

from schemas import tax
from schemas.catalogue import Catalogue, Plan
from schemas.clock import local_date
from schemas.errors import DataError
from schemas.messages import LineDocument, OrderDocument, Problem
from schemas.values import Period


def problems_of(order: OrderDocument, catalogue: Catalogue, now: datetime) -> list[Problem]:
    """Everything that keeps this order from being accepted; empty if nothing does."""
    customer = order.customer
    subsidiary = catalogue.subsidiaries.get(customer.subsidiary)
    if subsidiary is None:
        known = ", ".join(sorted(catalogue.subsidiaries))
        return [_problem("subsidiary_unknown", "customer.subsidiary", f"not one of {known}")]
    problems: list[Problem] = []
    try:
        tax.determine(
            subsidiary=subsidiary,
            customer_country=customer.country,
            vat_number=customer.vat_number,
            on=local_date(now, subsidiary.timezone),
        )
    except DataError as error:
        field = "vat_number" if error.code == "vat_number_invalid" else "country"
        problems.append(_problem(error.code, f"customer.{field}", str(error)))
    accepted = {agreement.contract: agreement.version for agreement in order.contracts}
    for number, line in enumerate(order.lines):
        path = f"lines.{number}"
        plan = catalogue.plan(line.plan)
        if plan is None:
            problems.append(_problem("plan_unknown", f"{path}.plan", f"no plan {line.plan!r}"))
            continue
        problems += _of_line(line, plan, subsidiary.code, path)
        problems += _of_contract(plan, accepted, catalogue)
    return list({(p.code, p.path): p for p in problems}.values())


def _of_line(line: LineDocument, plan: Plan, subsidiary: str, path: str) -> Iterator[Problem]:
    periods = plan.periods(subsidiary)
    try:
        period = Period.parse(line.period)
    except ValueError as error:
        yield _problem("period_invalid", f"{path}.period", str(error))
    else:
        if not periods:
            yield _problem(
                "plan_not_sold", f"{path}.plan", f"{plan.code} is not sold in {subsidiary}"
            )
        elif period not in periods:
            offered = ", ".join(map(str, periods))
            yield _problem("period_not_offered", f"{path}.period", f"offered: {offered}")
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
    for name in line.configuration.keys() - plan.options.keys():
        yield _problem(
            "option_unknown", f"{path}.configuration.{name}", f"{plan.code} has no such option"
        )


def _of_contract(plan: Plan, accepted: dict[str, int], catalogue: Catalogue) -> Iterator[Problem]:
    contract = catalogue.contract(plan.contract) if plan.contract else None
    if contract is None:
        return
    version = accepted.get(contract.code)
    wanted = f"{contract.code} version {contract.version} ({contract.url})"
    if version is None:
        yield _problem("contract_missing", "contracts", f"{plan.code} needs {wanted}")
    elif version != contract.version:
        yield _problem("contract_outdated", "contracts", f"{plan.code} needs {wanted}")


def _problem(code: str, path: str, message: str) -> Problem:
    return Problem(code=code, path=path, message=message)
