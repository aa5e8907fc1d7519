"""What goes out in which message: room shared between lanes, batches merged and cut."""

import uuid
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from producers.ledger.composing import Part, Ready, compose, share

sizes = st.lists(st.integers(1, 500), min_size=1, max_size=8)


def ready(
    size: int, lane: str = "a", *, starts: int = 0, room: int = 1000, has_suspect: bool = False
) -> Ready:
    return Ready("web", "converge", lane, uuid.uuid4(), size, starts, room, has_suspect)


def lengths(messages: list[list[Part]]) -> list[int]:
    return [sum(part.last - part.first + 1 for part in parts) for parts in messages]


@given(st.integers(0, 3000), sizes)
def test_room_is_used_up_and_never_exceeded(room: int, wanted: list[int]) -> None:
    granted = share(room, wanted)
    assert sum(granted) == min(room, sum(wanted))
    assert all(0 <= got <= want for got, want in zip(granted, wanted, strict=True))


@given(st.integers(0, 3000), sizes)
def test_no_lane_gets_less_than_its_part_while_another_gets_more(
    room: int, wanted: list[int]
) -> None:
    granted = share(room, wanted)
    short = [got for got, want in zip(granted, wanted, strict=True) if got < want]
    assert all(got >= max(granted) - 1 or got >= room // len(wanted) for got in short)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 700))), st.integers(1, 2000))
def test_every_subject_goes_out_once_in_messages_no_larger_than_allowed(
    lanes: list[tuple[str, int]], room: int
) -> None:
    batches = [ready(size, lane, room=room) for lane, size in sorted(lanes)]
    messages = compose(batches, lambda _: 100)
    assert all(0 < length <= 100 for length in lengths(messages))
    assert sum(lengths(messages)) == min(room, sum(size for _, size in lanes))
    sent = Counter(
        (part.batch.id, n)
        for parts in messages
        for part in parts
        for n in range(part.first, part.last + 1)
    )
    assert not sent or max(sent.values()) == 1
    assert all(len({part.batch.lane for part in parts}) == 1 for parts in messages)


def test_small_batches_of_a_lane_travel_together() -> None:
    assert lengths(compose([ready(1) for _ in range(7)], lambda _: 5)) == [5, 2]


def test_a_batch_that_fits_is_not_cut() -> None:
    messages = compose([ready(60), ready(60)], lambda _: 100)
    assert lengths(messages) == [60, 60]
    assert all(part.is_whole for parts in messages for part in parts)


def test_a_task_whose_start_came_to_no_end_travels_alone() -> None:
    messages = compose([ready(3), ready(1, starts=1), ready(2)], lambda _: 100)
    assert lengths(messages) == [3, 1, 2]


def test_a_queue_has_one_suspect_under_way() -> None:
    suspects = [ready(1, starts=3), ready(1, starts=4)]
    assert lengths(compose(suspects, lambda _: 100)) == [1]
    assert compose([ready(1, starts=3, has_suspect=True)], lambda _: 100) == []
