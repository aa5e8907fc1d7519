"""Errors that a user or an operator can meet, with one base class; and how any error is shown."""


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
    """One subject of a batch cannot be handled; the others can.

    ``code`` becomes the reason of the failed task.
    """

    code = "data"


_LONGEST = 1000


def first_line(error: BaseException) -> str:
    """What an error says, as one printable line of at most 1,000 characters.

    For SQLAlchemy's errors it is the driver's message, without statement and parameters. An error
    without a message is shown as Python writes it, such as ``TimeoutError()``.
    """
    cause = getattr(error, "orig", None) or error
    return _one_line(str(cause).strip().partition("\n")[0].rstrip() or repr(cause))


def _one_line(text: str) -> str:
    """Escape what is not printable: a message may quote anything, such as a file's content."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: _LONGEST + 1])
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
