"""How many tasks a message has for workers that call the outside world, and how many they claim."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.relay.windows import most_claimed, tasks_in_message


@given(at_once=st.integers(1, 5000))
def test_a_message_finds_room_while_every_call_is_under_way(at_once: int) -> None:
    assert 1 <= tasks_in_message(at_once) <= at_once
    assert most_claimed(at_once) >= at_once + tasks_in_message(at_once)


@pytest.mark.parametrize(
    ("at_once", "message", "claimed"),
    [(1, 1, 2), (4, 2, 8), (10, 5, 20), (20, 5, 30), (100, 25, 150), (400, 100, 600)],
)
def test_small_windows_have_messages_that_share_their_commits(
    at_once: int, message: int, claimed: int
) -> None:
    assert tasks_in_message(at_once) == message
    assert most_claimed(at_once) == claimed
