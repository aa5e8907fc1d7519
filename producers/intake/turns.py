"""Whose documents are taken next: upstreams take turns, so that none waits for what another floods.

A turn is bounded in documents and in bytes, and so in time; the more upstreams wait, the shorter it
is. The documents of one upstream keep their order.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from producers.intake.documents import Document
from producers.intake.replies import Address

TURN = 200
"""Most documents of a turn, which an upstream that is alone gets whole."""
TURN_BYTES = 1024 * 1024
SMALLEST_TURN = 10


@dataclass(frozen=True, slots=True)
class Delivery:
    """A document as the broker delivered it.

    Attributes:
        upstream: None: it does not say.
        tag: what it is acknowledged by, on the connection it came with.
        type: what it says that it is, such as ``order.v1``.
        trace: the header ``traceparent`` of W3C that came with it, unchecked.
        document: as it was read already; large ones are not, before their turn comes.
        answer_to: where its outcome is to be published.
    """

    upstream: str | None
    tag: int
    body: bytes
    type: str | None = None
    trace: str | None = None
    document: Document | None = None
    answer_to: Address | None = None

    def read(self) -> Document:
        """The document; never raises."""
        return self.document or Document.read(self.body, None, self.type)


class Turns:
    """The documents that were delivered and not taken yet."""

    def __init__(self) -> None:
        # In the order of their next turns.
        self._waiting: dict[str | None, deque[Delivery]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, delivery: Delivery) -> None:
        self._waiting.setdefault(delivery.upstream, deque()).append(delivery)

    def next(self, most: int = TURN) -> list[Delivery]:
        """The next turn: documents of one upstream, in the order they came; empty: none waits.

        Args:
            most: documents.
        """
        if not self._waiting:
            return []
        upstreams = len(self._waiting)
        most = min(most, max(SMALLEST_TURN, TURN // upstreams))
        room = TURN_BYTES // upstreams
        upstream = next(iter(self._waiting))
        waiting = self._waiting.pop(upstream)
        turn = [waiting.popleft()]
        room -= len(turn[0].body)
        while waiting and len(turn) < most and len(waiting[0].body) <= room:
            room -= len(waiting[0].body)
            turn.append(waiting.popleft())
        if waiting:
            self._waiting[upstream] = waiting  # behind the others
        return turn

    def put_back(self, turn: Sequence[Delivery]) -> None:
        """Have the documents of a turn come next, again."""
        for delivery in reversed(turn):
            waiting = self._waiting.pop(delivery.upstream, deque())
            waiting.appendleft(delivery)
            self._waiting = {delivery.upstream: waiting, **self._waiting}
