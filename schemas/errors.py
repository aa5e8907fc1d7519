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
        self.problems = [_one_line(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


class DataError(AutorenewError):
    """One subject of a batch cannot be handled as it is; its neighbours can.

    ``code`` becomes the failed task's reason.
    """

    code = "data"


_LONGEST = 1000


def _one_line(text: str) -> str:
    """A problem quotes what stands in a file, which may be anything."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_LONGEST])
    return line if len(text) <= _LONGEST else f"{line}…"


def first_line(error: BaseException) -> str:
    """What an error says, on one line: of one that SQLAlchemy wraps, the database's own words.

    >>> first_line(ValueError("no such day\\nfile, line 1"))
    'no such day'
    """
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return _one_line(lines[0]) if lines else repr(error)
