"""Who may use the console: administrators add, change and remove them; everybody changes their own
password."""

from starlette.responses import Response

from autorenew.console import accounts
from autorenew.console.context import BadInput, Visit
from autorenew.console.rendering import page
from autorenew.console.routing import see
from schemas.values import OperatorRole


def list_operators(visit: Visit) -> Response:
    with visit.console.engine.begin() as tx:
        found = accounts.accounts(tx)
    return page(visit, "operators.html", operators=found, roles=list(OperatorRole))


def add(visit: Visit) -> Response:
    name, role = visit.form.need("name", "the name"), _role(visit)
    password = visit.form.need("password", "the password")
    with visit.console.engine.begin() as tx:
        accounts.add(tx, name, role, password)
    return see("/operators")


def _role(visit: Visit) -> OperatorRole:
    try:
        return OperatorRole(visit.form.need("role", "the role"))
    except ValueError:
        raise BadInput("there is no such role") from None


def change_role(visit: Visit) -> Response:
    name = _other(visit)
    with visit.console.engine.begin() as tx:
        accounts.set_role(tx, name, _role(visit))
    return see("/operators")


def _other(visit: Visit) -> str:
    """Nobody shuts themselves out."""
    name = visit.form.need("name", "the name")
    if name == visit.who:
        raise BadInput("you cannot change or remove yourself: ask another administrator")
    return name


def confirm_remove(visit: Visit) -> Response:
    with visit.console.engine.begin() as tx:
        account = accounts.get(tx, visit.query.need("name", "the name"))
    return page(visit, "confirm_remove_operator.html", account=account)


def remove(visit: Visit) -> Response:
    name = _other(visit)
    with visit.console.engine.begin() as tx:
        accounts.remove(tx, name)
    return see("/operators")


def password_form(visit: Visit) -> Response:
    return page(visit, "password.html", problem=None, shortest=accounts.SHORTEST_PASSWORD)


def change_password(visit: Visit) -> Response:
    """One's own; all sessions end, this one too."""
    new = visit.form.need("password", "the new password")
    with visit.console.engine.begin() as tx:
        account = accounts.get(tx, visit.who)
    current = visit.form.get("current") or ""
    is_right = not account.has_password or accounts.is_password(
        visit.console.engine, visit.who, current
    )
    problem = None if is_right else "The current password is another one."
    if is_right and new != visit.form.get("again"):
        problem = "The new password was not repeated."
    if problem is None:
        try:
            with visit.console.engine.begin() as tx:
                accounts.set_password(tx, visit.who, new)
            return see("/sign-in")
        except accounts.WrongOperator as error:
            problem = str(error)
    return page(
        visit, "password.html", status=422, problem=problem, shortest=accounts.SHORTEST_PASSWORD
    )
