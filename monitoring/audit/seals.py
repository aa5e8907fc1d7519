"""Documents and history are what they were when they were hashed: see ``monitoring.seals``."""

from collections.abc import Iterable, Iterator

from monitoring import seals
from monitoring.audit.checks import WHOLE, Books, Check, Offence, Since


def _documents(books: Books) -> Iterator[Offence]:
    if books.mark is None and books.piece == WHOLE:
        names: Iterable[str] = seals.broken_documents(books.tx)
    elif books.mark is None:
        names = seals.broken_documents_between(books.tx, *books.piece)
        if books.piece.is_first:
            names = [*names, *seals.broken_series(books.tx)]
    else:
        known = books.mark.documents
        for head in seals.missing(books.tx, known):
            yield Offence("document", f"{head.chain}-{head.number}")
        names = seals.broken_documents_after(books.tx, known)
    for name in names:
        yield Offence("document", name)


def _history(books: Books) -> Iterator[Offence]:
    mark = books.mark
    head = None if mark is None else mark.history
    if mark is None or head is None:
        blocks = seals.broken_blocks(books.tx)
    else:
        if seals.missing(books.tx, [head]):
            yield Offence("block of", f"events up to {mark.last_id}")
        blocks = seals.broken_blocks(books.tx, after=(head, mark.last_id))
    for block in blocks:
        yield Offence("block of", block)


CHECKS = (
    Check(
        "seals.documents",
        "every invoice and credit note is what it was when it was issued, and follows the last one",
        _documents,
        since=Since.ONCE,
    ),
    Check(
        "seals.history",
        "the history is what it was when it was sealed, and all of it was",
        _history,
        whole=True,
        since=Since.ONCE,
    ),
)
