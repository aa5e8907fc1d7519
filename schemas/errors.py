"""The one base class of every error a user or an operator can meet."""


class AutorenewError(Exception):
    """Something a person can act on: a stable ``code`` for programs, a sentence for people."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ConfigurationError(AutorenewError):
    """A setting is missing or wrong; the message is one line and names it."""

    code = "configuration"


class CatalogueError(AutorenewError):
    """A catalogue cannot be used; one line per problem, each naming file, plan and field."""

    code = "catalogue"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InvalidTransition(AutorenewError):
    """A state was asked to change in a way its table does not list."""

    code = "invalid_transition"


class DataError(AutorenewError):
    """One subject of a batch cannot be handled as it is; its neighbours can.

    ``code`` becomes the failed task's reason.
    """

    code = "data"
