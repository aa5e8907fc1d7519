"""The one function behind every door by which orders and commands come in.

One bad document never harms its neighbours, and what is not accepted is kept where a person finds
it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from itertools import groupby, zip_longest

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

from monitoring import metrics, tracing
from producers.failpoints import failpoint
from producers.intake import commands, orders, rejected
from producers.intake.documents import Answer, Document, Refused, Verdict
from producers.intake.realms import Realms
from schemas.catalogue import Catalogue
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.database import is_conflict, is_data_error
from schemas.errors import DataError
from schemas.messages import OrderDocument, Problem

# A transaction that lost a conflict has left nothing behind.
_RETRY_CONFLICTS = Retrying(
    retry=retry_if_exception(lambda e: is_conflict(e) or isinstance(e, orders.Raced)),
    stop=stop_after_attempt(5),
    wait=wait_random(0, 0.05),
    reraise=True,
)
_UNFORESEEN = Problem(code="data", path="", message="the database refuses its data")


class Intake:
    """Takes documents in.

    Args:
        engine: as the database role ``api``.
        realms: which upstreams share their customers; by default none do.
    """

    def __init__(
        self,
        engine: Engine,
        catalogue: CatalogueCache,
        clock: Clock,
        realms: Realms | None = None,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._clock = clock
        self._realms = realms or Realms()

    def place(
        self,
        upstream: str,
        door: str,
        bodies: Sequence[bytes | Document],
        traces: Sequence[str | None] = (),
    ) -> list[Answer]:
        """Take a batch of documents of one upstream.

        Args:
            bodies: each as it came in, or as it was read already.
            door: where they came in, such as ``amqp``; a label of the metric.
            traces: of each document, the W3C trace context that came with it, or None.

        Returns:
            An answer for each document, in order.

        Raises:
            SQLAlchemyError: the batch may be sent again as it is; documents that were taken before
                the error are then answered as repeated.
        """
        begun = [
            tracing.begin("take document", parent=parent, upstream=upstream, door=door)
            for _, parent in zip_longest(bodies, map(tracing.valid, traces))
        ]
        try:
            contexts = [context for context, _ in begun]
            return self._place_all(upstream, door, bodies, contexts)
        finally:
            for _, end in begun:
                end()

    def _place_all(
        self,
        upstream: str,
        door: str,
        bodies: Sequence[bytes | Document],
        traces: Sequence[str | None],
    ) -> list[Answer]:
        try:
            answers = _RETRY_CONFLICTS(self._place, upstream, door, bodies, traces)
        except (SQLAlchemyError, DataError) as error:
            if isinstance(error, SQLAlchemyError) and not is_data_error(error):
                raise
            if len(bodies) > 1:  # halve the batch until the bad document stands alone
                middle = len(bodies) // 2
                return self._place_all(
                    upstream, door, bodies[:middle], traces[:middle]
                ) + self._place_all(upstream, door, bodies[middle:], traces[middle:])
            answers = [Answer(Verdict.REJECTED, None, problems=[_UNFORESEEN])]
            with self._engine.begin() as tx:
                rejected.keep(tx, upstream, door, [(_read(bodies[0]), answers[0])])
        for answer in answers:
            outcome = "repeated" if answer.repeated else answer.verdict.value
            metrics.documents.labels(door, outcome).inc()
        return answers

    def command(
        self,
        tx: Connection,
        upstream: str,
        door: str,
        body: bytes,
        *,
        realm: str | None,
        trace: str | None = None,
    ) -> Answer:
        """Do one command within a transaction of the caller's; one that is refused does nothing.

        Args:
            realm: that it speaks for; None: an operator's.
            trace: the W3C trace context that came with it.
        """
        context, end = tracing.begin(
            "take document", parent=tracing.valid(trace), upstream=upstream, door=door
        )
        try:
            document = Document.read(body, context)
            answer = self._command(tx, document, self._catalogue.current(tx), realm)
        finally:
            end()
        if answer.verdict is not Verdict.ACCEPTED:
            rejected.keep(tx, upstream, door, [(document, answer)])
        outcome = "repeated" if answer.repeated else answer.verdict.value
        metrics.documents.labels(door, outcome).inc()
        return answer

    def reject(
        self, upstream: str, door: str, bodies: Sequence[bytes], problems: list[Problem]
    ) -> list[Answer]:
        """Keep documents that are not looked at, such as those whose upstream is unknown."""
        answer = Answer(Verdict.REJECTED, None, problems=problems)
        with self._engine.begin() as tx:
            rejected.keep(tx, upstream, door, [(Document.read(body), answer) for body in bodies])
        metrics.documents.labels(door, answer.verdict.value).inc(len(bodies))
        return [answer] * len(bodies)

    def check(self) -> None:
        """Check that the database can be used, so that documents could be taken.

        Raises:
            SQLAlchemyError: it cannot.
            ConfigurationError: no catalogue is in force.
        """
        with self._engine.begin() as tx:
            self._catalogue.current(tx)

    def forget_rejected(self, days: int) -> int:
        """Delete rejected documents that were last received so many days ago or earlier.

        Returns:
            How many; at most :data:`rejected.FORGET_AT_ONCE` of them in a call.
        """
        with self._engine.begin() as tx:
            return rejected.forget(tx, days)

    def _place(
        self,
        upstream: str,
        door: str,
        bodies: Sequence[bytes | Document],
        traces: Sequence[str | None],
    ) -> list[Answer]:
        answers: list[Answer] = []
        realm = self._realms.of(upstream, door)
        for documents in _in_transactions(map(_read, bodies, traces)):
            with self._engine.begin() as tx:
                catalogue = self._catalogue.current(tx)
                if _kind(documents[0]) is _Kind.COMMAND:
                    answered = [
                        self._command(tx, document, catalogue, realm) for document in documents
                    ]
                else:
                    answered = orders.take(
                        tx, upstream, documents, catalogue, self._clock.now(), realm=realm
                    )
                rejected.keep(
                    tx,
                    upstream,
                    door,
                    (
                        (document, answer)
                        for document, answer in zip(documents, answered, strict=True)
                        if answer.verdict is not Verdict.ACCEPTED and not answer.repeated
                    ),
                )
                failpoint("intake.before_commit")
            answers += answered
        return answers

    def _command(
        self, tx: Connection, document: Document, catalogue: Catalogue, realm: str | None
    ) -> Answer:
        command = document.content
        if command is None or isinstance(command, OrderDocument):
            return Answer(Verdict.REJECTED, None, problems=document.problems)
        try:
            with tx.begin_nested():
                changed = commands.apply(
                    tx, command, catalogue, self._clock.now(), realm=realm, trace=document.trace
                )
        except Refused as refused:
            return Answer(Verdict.REFUSED, None, problems=refused.problems)
        return Answer(Verdict.ACCEPTED, None, repeated=not changed)


def _read(body: bytes | Document, trace: str | None = None) -> Document:
    if isinstance(body, Document):
        return replace(body, trace=trace) if trace else body
    return Document.read(body, trace)


class _Kind(Enum):
    COMMAND = 1
    ORDER = 2
    ORDER_ON_SAVED_METHOD = 3


def _kind(document: Document) -> _Kind:
    if isinstance(document.value, dict) and "command" in document.value:
        return _Kind.COMMAND
    order = document.content
    if isinstance(order, OrderDocument) and order.payment_method is None:
        return _Kind.ORDER_ON_SAVED_METHOD
    return _Kind.ORDER


def _in_transactions(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents that are taken in one transaction, in the order they came.

    Orders are taken many at a time. A command is alone in its transaction, and an order paid with
    the saved method is in a later one than the orders before it, which may save that method.
    """
    for kind, group in groupby(documents, key=_kind):
        if kind is _Kind.COMMAND:
            yield from ([document] for document in group)
        else:
            yield list(group)
