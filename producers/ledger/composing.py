"""Which batches go out together, in which message: pure functions over what is ready."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

# From its fourth start without an end a task is a suspect: a queue has one suspect under way at
# a time, so that no two die of each other until one is set aside.
SUSPECT_FROM_STARTS = 3


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch that may go out."""

    queue: str
    name: str
    lane: str
    id: uuid.UUID
    size: int
    starts: int
    room: int
    """How many tasks its queue has room for."""
    has_suspect: bool
    """Whether a suspect of its queue is under way."""
    lane_room: int | None = None
    """How many tasks its lane may hand over; None: it has no limit."""
    is_probe: bool = False
    """Its lane is open: one of its tasks goes out."""
    waited: float = 0.0
    """Seconds since the first of its tasks was ready."""


@dataclass(frozen=True, slots=True)
class Part:
    """Subjects ``first`` to ``last`` of a batch, counted from 1."""

    batch: Ready
    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    @property
    def is_whole(self) -> bool:
        return self.size == self.batch.size


def share(room: int, sizes: Sequence[int]) -> list[int]:
    """How much of ``room`` each lane gets: equal parts, and what one leaves over the others get."""
    granted = [0] * len(sizes)
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    for position, lane in enumerate(by_size):
        granted[lane] = min(sizes[lane], room // (len(sizes) - position))
        room -= granted[lane]
    return granted


def compose(ready: Iterable[Ready], most: Callable[[str], int]) -> list[list[Part]]:
    """What goes out, message by message.

    Args:
        ready: of each lane together, the oldest first.
        most: tasks in one message, by the task's name.
    """
    messages: list[list[Part]] = []
    left: dict[str, int] = {}  # of lanes with a limit, which may be on several queues
    for _, of_queue in groupby(ready, key=lambda batch: batch.queue):
        lanes = [
            list(group)
            for _, group in groupby(
                _one_suspect(of_queue), key=lambda batch: (batch.name, batch.lane)
            )
        ]
        if lanes:
            wanted = [_wanted(lane, left) for lane in lanes]
            granted = share(lanes[0][0].room, wanted)
            for lane, room in zip(lanes, granted, strict=True):
                name = lane[0].lane
                if name in left:
                    room = min(room, left[name])
                    left[name] -= room
                messages += _fill(lane, room, most(lane[0].name))
    return messages


def _wanted(lane: Sequence[Ready], left: dict[str, int]) -> int:
    """How many tasks of a lane may go out, if there is room in its queue."""
    wanted = sum(batch.size for batch in lane)
    if lane[0].lane_room is None:
        return wanted
    return min(wanted, left.setdefault(lane[0].lane, lane[0].lane_room))


def _one_suspect(of_queue: Iterable[Ready]) -> Iterable[Ready]:
    busy = False
    for batch in of_queue:
        if batch.starts < SUSPECT_FROM_STARTS:
            yield batch
        elif not (busy or batch.has_suspect):
            busy = True
            yield batch


def _fill(lane: Sequence[Ready], room: int, most: int) -> Iterable[list[Part]]:
    """Batches stay whole where they can: that costs nothing to write."""
    message: list[Part] = []
    free = most
    for batch in lane:
        left = min(batch.size, room)
        room -= left
        if message and (left > free or batch.starts):
            yield message
            message, free = [], most
        first = 1
        while left > 0:
            taken = min(left, free)
            message.append(Part(batch, first, first + taken - 1))
            first, left, free = first + taken, left - taken, free - taken
            if free == 0 or batch.starts:
                yield message
                message, free = [], most
    if message:
        yield message
