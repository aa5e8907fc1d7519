"""Big statements stand whole in files of their own, to be read and explained alone."""

from pathlib import Path

from sqlalchemy import TextClause, text


def statement(module: str, name: str) -> TextClause:
    """The statement in a file beside a module.

    Args:
        module: the module's ``__file__``.
        name: of the file, relative to it.
    """
    return text((Path(module).parent / name).read_text(encoding="utf-8"))
