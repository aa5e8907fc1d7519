"""Documents and history are what they were when they were hashed: see ``monitoring.seals``."""

from collections.abc import Iterator

from monitoring import seals
from monitoring.audit.checks import Books, Check, Offence


def _documents(books: Books) -> Iterator[Offence]:
    for name in seals.broken_documents(books.tx):
        yield Offence("document", name)


def _history(books: Books) -> Iterator[Offence]:
    for block in seals.broken_blocks(books.tx):
        yield Offence("block of", block)


CHECKS = (
    Check(
        "seals.documents",
        "every invoice and credit note is what it was when it was issued, and follows the last one",
        _documents,
        whole=True,
    ),
    Check(
        "seals.history",
        "the history is what it was when it was sealed, and all of it was",
        _history,
        whole=True,
    ),
)
