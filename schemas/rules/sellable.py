"""What may be sold in a subsidiary, to whom, and what is only renewed there.

Orders and imports ask here; each adds its own path to what is said.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import NamedTuple

from schemas.catalogue.models import Catalogue, Contract, Plan, Subsidiary
from schemas.errors import DataError
from schemas.rules import tax
from schemas.values import Period


class Obstacle(NamedTuple):
    """Why something cannot be sold.

    Attributes:
        code: stable.
        about: which of the things that were asked for, such as ``period`` or
            ``configuration.region``.
    """

    code: str
    about: str
    message: str


def of_customer(
    subsidiary: Subsidiary, country: str, vat_number: str | None, on: date
) -> Iterator[Obstacle]:
    """What keeps a subsidiary from selling to a customer: ``tax_not_supported``,
    ``vat_number_invalid``.

    Args:
        on: the subsidiary's local date.
    """
    try:
        tax.determine(subsidiary=subsidiary, customer_country=country, vat_number=vat_number, on=on)
    except DataError as error:
        about = "vat_number" if error.code == "vat_number_invalid" else "country"
        yield Obstacle(error.code, about, str(error))


def never(catalogue: Catalogue, on: date) -> Iterator[str]:
    """What of a catalogue no order could ever buy, and why.

    Args:
        on: the day it is put in force.
    """
    for subsidiary in sorted(catalogue.subsidiaries.values(), key=lambda s: s.code):
        for obstacle in of_customer(subsidiary, subsidiary.country, None, on):
            plans = sum(bool(plan.periods(subsidiary.code)) for plan in catalogue.plans.values())
            lost = f"none of {plans} plans could be sold"
            yield f"subsidiary {subsidiary.code}: {obstacle.message}: {lost}"


def of_period(
    plan: Plan, subsidiary: str, period: Period | None, *, renewed: bool = False
) -> Iterator[Obstacle]:
    """What keeps a plan from being sold in a subsidiary for a period: ``plan_not_sold``,
    ``period_not_offered``.

    Args:
        period: None: it is not known, and only the subsidiary is checked.
        renewed: what is not sold any more and only renewed will do.
    """
    price = plan.renewal if renewed else plan.price
    if period is not None and price(subsidiary, period) is not None:
        return
    offered = plan.periods(subsidiary, renewed=renewed)
    if not offered:
        yield Obstacle("plan_not_sold", "plan", f"{plan.code} is not sold in {subsidiary}")
    elif period is not None:
        others = ", ".join(map(str, offered))
        message = f"{plan.code} has no price for {period} in {subsidiary}; it has for {others}"
        yield Obstacle("period_not_offered", "period", message)


def of_quantity(plan: Plan, quantity: int) -> Iterator[Obstacle]:
    """``quantity_out_of_bounds``."""
    if not plan.quantity_min <= quantity <= plan.quantity_max:
        message = f"must be {plan.quantity_min} to {plan.quantity_max}"
        yield Obstacle("quantity_out_of_bounds", "quantity", message)


def of_options(plan: Plan, configuration: Mapping[str, str]) -> Iterator[Obstacle]:
    """What is wrong with the choices for a plan: ``option_missing``, ``option_invalid``,
    ``option_unknown``."""
    for name, option in plan.options.items():
        value, about = configuration.get(name), f"configuration.{name}"
        if value is None:
            if option.required:
                yield Obstacle("option_missing", about, f"{plan.code} needs the option {name}")
        elif option.values and value not in option.values:
            yield Obstacle("option_invalid", about, f"one of {', '.join(option.values)}")
    for name in sorted(configuration.keys() - plan.options.keys()):
        message = f"{plan.code} has no such option"
        yield Obstacle("option_unknown", f"configuration.{name}", message)


def contract_of(plan: Plan, catalogue: Catalogue) -> Contract | None:
    """The contract a customer has to accept, in its current version; None: there is none."""
    return catalogue.contract(plan.contract) if plan.contract else None


def missing_contract(plan: Plan, agreed: int | None, catalogue: Catalogue) -> int | None:
    """The version of the plan's contract that is still to be accepted, if any.

    Args:
        agreed: the newest version that was accepted.
    """
    contract = contract_of(plan, catalogue)
    if contract is None or (agreed or 0) >= contract.version:
        return None
    return contract.version
