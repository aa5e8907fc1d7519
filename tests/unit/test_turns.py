"""Upstreams take turns, which are bounded in documents and in bytes."""

from hypothesis import given
from hypothesis import strategies as st

from producers.intake.turns import SMALLEST_TURN, TURN, TURN_BYTES, Delivery, Turns


def turns(*upstreams: str, size: int = 1) -> Turns:
    """With one document for each name, in this order; tags from 1 on."""
    waiting = Turns()
    for tag, upstream in enumerate(upstreams, 1):
        waiting.add(Delivery(upstream, tag, b"x" * size))
    return waiting


def all_of(waiting: Turns) -> list[list[tuple[str | None, int]]]:
    taken = []
    while turn := waiting.next():
        taken.append([(delivery.upstream, delivery.tag) for delivery in turn])
    return taken


def test_upstream_that_is_alone_gets_a_whole_turn() -> None:
    waiting = turns(*["shop"] * (TURN + 1))

    assert [len(turn) for turn in all_of(waiting)] == [TURN, 1]


def test_one_document_of_another_upstream_waits_for_half_a_turn_and_not_for_a_flood() -> None:
    waiting = turns(*["flood"] * 399, "shop")

    first, second, *_ = all_of(waiting)

    assert (len(first), {upstream for upstream, _ in first}) == (TURN // 2, {"flood"})
    assert second == [("shop", 400)]


def test_turn_is_bounded_in_bytes_and_holds_one_document_at_least() -> None:
    large = TURN_BYTES // 4
    assert [len(turn) for turn in all_of(turns(*["shop"] * 6, size=large))] == [4, 2]
    assert [len(turn) for turn in all_of(turns(*["shop"] * 2, size=2 * TURN_BYTES))] == [1, 1]


def test_with_many_upstreams_a_turn_still_holds_some_documents() -> None:
    waiting = turns(*(f"shop-{n % 100}" for n in range(2000)))

    assert all(len(turn) == SMALLEST_TURN for turn in all_of(waiting)[:100])


def test_documents_that_are_put_back_come_next_and_in_their_order() -> None:
    waiting = turns("a", "a", "b", "a")
    turn = waiting.next()

    waiting.put_back(turn)

    assert waiting.next(2) == turn[:2]
    assert len(waiting) == 2


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=300), st.integers(1, 300))
def test_every_document_is_taken_once_and_each_upstreams_in_order(
    upstreams: list[str], most: int
) -> None:
    waiting = turns(*upstreams)
    taken: list[Delivery] = []
    while turn := waiting.next(most):
        assert len({delivery.upstream for delivery in turn}) == 1
        taken += turn

    for upstream in set(upstreams):
        tags = [delivery.tag for delivery in taken if delivery.upstream == upstream]
        assert tags == [tag for tag, name in enumerate(upstreams, 1) if name == upstream]
    assert len(taken) == len(upstreams)
