"""Takes documents from the AMQP queues of intake: plain JSON, one document a message.

A document is acknowledged after the commit that took it, accepted or not. The property ``user_id``,
which RabbitMQ verifies, names the upstream. Whoever asks for it by ``reply_to`` gets an answer
after that commit, see :mod:`producers.intake.replies`.

The documents are taken by a thread of their own, while this one goes on serving the connection: a
database that hangs costs no connection, and so no redelivery. During an outage of the database the
documents stay where they are, held here for a while and then in the queue.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from producers.broker import LOST, BrokerLost, BrokerUnreachable, Hosts, reason
from producers.failpoints import failpoint
from producers.intake.documents import Answer
from producers.intake.intake import Intake
from producers.intake.link import ConsumerCancelled, Link
from producers.intake.replies import Replies
from producers.intake.turns import TURN, Delivery
from producers.loop import Loop
from producers.topology import INTAKE_QUEUE, queue_of
from schemas.errors import AutorenewError, first_line
from schemas.messages import Problem

log = logging.getLogger(__name__)
R = TypeVar("R")

# How long to wait for a document: also how long a stop may take.
POLL_SECONDS = 0.2
# How long documents are held that cannot be taken. RabbitMQ closes a channel that acknowledges
# nothing for half an hour; then they go back to the queue, where they stay until they can be taken.
HOLD_SECONDS = 600.0
TIDY_EVERY_SECONDS = 60.0
HEARTBEAT_SECONDS = 20
LONGEST_PAUSE = 5.0
# More documents than this that each fail by themselves: it is not the documents.
MOST_SUSPECTS = 20

ANONYMOUS = "(no user_id)"
_NO_USER = [
    Problem(
        code="user_id_missing",
        path="",
        message="publish with the property user_id, which must be your AMQP user",
    )
]


class AmqpIntake:
    """Takes documents from RabbitMQ until stopped.

    Args:
        urls: one URL, or several separated by commas: the first that answers is used.
        upstreams: those that have a queue of their own.
        keep_days: how long rejected documents are kept; 0: for ever.

    Raises:
        ConfigurationError: a URL cannot be used.
    """

    def __init__(
        self, urls: str, intake: Intake, *, upstreams: Sequence[str] = (), keep_days: int = 0
    ) -> None:
        self._hosts = Hosts(urls, name="autorenew intake", heartbeat=HEARTBEAT_SECONDS)
        self._queues = (INTAKE_QUEUE, *map(queue_of, upstreams))
        self._intake = intake
        self._keep_days = keep_days
        self._link: Link | None = None
        self._replies = Replies(urls)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._failing_since: float | None = None
        self._singly = 0  # so many turns are to be of one document
        self._suspects: list[Delivery] = []
        self._next_tidy = 0.0
        causes = dict.fromkeys((BrokerLost, BrokerUnreachable, ConsumerCancelled), "broker")
        self._loop = Loop(
            *("intake", self._round),
            causes=causes,
            longest_pause=LONGEST_PAUSE,
            meanwhile=self._serve,
        )

    def stop(self) -> None:
        """Have :meth:`run` return after the turn it is in."""
        self._loop.stop()

    def run(self) -> None:
        """Work until :meth:`stop`."""
        try:
            self._loop.run()
        finally:
            self._disconnect()
            self._pool.shutdown()
            self._replies.close()

    def _round(self) -> float:
        """Take the next turn; what is not acknowledged the broker delivers again."""
        try:
            if self._link is None:
                self._intake.check()  # or documents would be delivered for nothing
                self._link = Link(self._hosts, self._queues)
            self._receive(self._link)
            if turn := self._link.turns.next(1 if self._singly else TURN):
                self._take(self._link, turn)
            self._link.measure()
            self._tidy(self._link)
        except _NotTaken as error:
            since = self._failing_since
            if since is not None and time.monotonic() - since > HOLD_SECONDS:
                self._disconnect()
            raise error.cause from None
        except BaseException as error:
            self._disconnect()
            if isinstance(error, LOST):
                raise BrokerLost(reason(error)) from error
            raise
        return 0.0

    def _disconnect(self) -> None:
        link, self._link = self._link, None
        self._suspects.clear()
        self._singly = 0
        self._failing_since = None
        if link is not None:
            link.close()

    def _serve(self) -> None:
        """Keep the connection alive while the loop waits after an error."""
        if self._link is not None:
            try:
                self._link.serve(0.0)
            except Exception:  # the next round says so
                log.debug("the connection was lost", exc_info=True)
                self._disconnect()

    def _receive(self, link: Link) -> None:
        """Wait for documents; it does not wait for more: what comes meanwhile is a later turn."""
        before = len(link.turns)
        link.serve(0.0 if before else POLL_SECONDS)
        while before < len(link.turns) < TURN:
            before = len(link.turns)
            link.serve(0.0)

    def _take(self, link: Link, turn: list[Delivery]) -> None:
        """Take the documents of one upstream, and acknowledge them.

        Raises:
            _NotTaken: they are to be tried again.
        """
        try:
            answers = self._place(link, turn)
        except _NotTaken as error:
            if self._failing_since is None:
                self._failing_since = time.monotonic()
            if not error.may_be_its_documents:
                link.turns.put_back(turn)
                raise
            if len(turn) > 1:
                link.turns.put_back(turn)
                self._singly = len(turn)
                return
            log.error("a document of %s cannot be taken", turn[0].upstream, exc_info=error.cause)
            self._suspects += turn
            if len(self._suspects) > MOST_SUSPECTS:
                link.turns.put_back(self._suspects)
                self._suspects = []
                raise
        else:
            self._failing_since = None
            self._reply(turn, answers)
            failpoint("intake.before_ack")
            link.acknowledge(turn)
            failpoint("intake.after_ack")
            self._try_suspects(link)
        self._singly = max(0, self._singly - 1)

    def _try_suspects(self, link: Link) -> None:
        """Others were taken: what fails again now has the fault in itself, and is set aside."""
        suspects, self._suspects = self._suspects, []
        for number, suspect in enumerate(suspects):
            try:
                answers = self._place(link, [suspect])
            except _NotTaken as error:
                if not error.may_be_its_documents:
                    link.turns.put_back(suspects[number:])
                    raise
                log.error(
                    "a document of %s is set aside on intake.dead: %r",
                    suspect.upstream,
                    error.cause,
                )
                metrics.documents.labels("amqp", "set_aside").inc()
                link.set_aside(suspect)
            else:
                self._reply([suspect], answers)
                link.acknowledge([suspect])

    def _place(self, link: Link, turn: Sequence[Delivery]) -> list[Answer]:
        upstream = turn[0].upstream
        if upstream is None:
            bodies = [delivery.body for delivery in turn]
            return self._while_serving(
                link, lambda: self._intake.reject(ANONYMOUS, "amqp", bodies, _NO_USER)
            )

        def place() -> list[Answer]:
            documents = [delivery.read() for delivery in turn]
            traces = [delivery.trace for delivery in turn]
            return self._intake.place(upstream, "amqp", documents, traces)

        return self._while_serving(link, place)

    def _reply(self, turn: Sequence[Delivery], answers: Sequence[Answer]) -> None:
        """Answer those that ask for it; never waits, and never fails."""
        for delivery, answer in zip(turn, answers, strict=True):
            if delivery.answer_to is not None:
                self._replies.send(delivery.answer_to, answer)

    def _while_serving(self, link: Link, work: Callable[[], R]) -> R:
        """Do something that may take long, in the other thread.

        Raises:
            _NotTaken: it failed.
        """
        done = self._pool.submit(work)
        done.add_done_callback(lambda _: link.wake())
        try:
            while not done.done():
                link.serve(1.0)
        finally:
            wait([done])  # the connection may be lost; never two at once
        if (error := done.exception()) is not None:
            if not isinstance(error, Exception):
                raise error
            raise _NotTaken(error)
        return done.result()

    def _tidy(self, link: Link) -> None:
        """Delete rejected documents that are old enough, some at a time."""
        if not self._keep_days or time.monotonic() < self._next_tidy:
            return
        self._next_tidy = time.monotonic() + TIDY_EVERY_SECONDS
        try:
            deleted = self._while_serving(
                link, lambda: self._intake.forget_rejected(self._keep_days)
            )
        except _NotTaken as error:
            log.warning("old rejected documents are not deleted: %s", first_line(error.cause))
        else:
            if deleted:
                self._next_tidy = 0.0  # there may be more


class _NotTaken(Exception):
    """Documents could not be taken, for a cause that has nothing to do with the connection."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause

    @property
    def may_be_its_documents(self) -> bool:
        """Whether it may be a defect that one document brings to light.

        Trouble of the database's, of the operating system's, or of the configuration is not.
        """
        return not isinstance(
            self.cause, SQLAlchemyError | psycopg.Error | OSError | MemoryError | AutorenewError
        )
