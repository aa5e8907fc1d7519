"""From what is chosen on a page to a command, and from the intake's answer to what is said."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from producers.intake import Answer, Verdict
from producers.pages.rows import Action, Row
from producers.renewals.announcing import ONE_DAY

Said = Literal["done", "already", "refused"]


def command_of(customer: str, action: Action, rows: Sequence[Row]) -> dict[str, Any]:
    """The command that does something about services, as they are now.

    Args:
        rows: delivered services of that customer.
    """
    if action in (Action.STOP, Action.RESUME):
        services: list[Any] = [str(row.id) for row in rows]
        return {"command": action.value, "customer": customer, "services": services}
    services = [
        {"id": str(row.id), "expires_on": (row.last_day + ONE_DAY).isoformat()}
        for row in rows
        if row.last_day is not None
    ]
    command = {"command": "renew", "customer": customer, "services": services}
    if action is Action.ACCEPT:
        versions = {row.contract.code: row.contract.version for row in rows if row.contract}
        command["contracts"] = [{"contract": c, "version": v} for c, v in versions.items()]
    return command


def services_of(command: Mapping[str, Any]) -> list[str]:
    """The services that a command names, in its order."""
    return [s if isinstance(s, str) else s["id"] for s in command["services"]]


def said_of(answer: Answer) -> Said:
    if answer.verdict is not Verdict.ACCEPTED:
        return "refused"
    return "already" if answer.repeated else "done"


def problems_of(answer: Answer, services: Sequence[str]) -> dict[str, str]:
    """The first problem of each service, by its id; of none in particular under nothing.

    Args:
        services: in the order in which the command names them.
    """
    problems: dict[str, str] = {}
    for problem in answer.problems:
        group, _, rest = problem.path.partition(".")
        number = rest.partition(".")[0]
        whose = ""
        if group == "services" and number.isdecimal() and int(number) < len(services):
            whose = services[int(number)]
        problems.setdefault(whose, problem.code)
    return problems


def uuids(texts: Sequence[str]) -> list[uuid.UUID]:
    """Those that are; each once."""
    found: dict[uuid.UUID, None] = {}
    for one in texts:
        try:
            found[uuid.UUID(one)] = None
        except ValueError:
            continue
    return list(found)
