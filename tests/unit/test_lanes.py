"""Which pauses of a lane a person means to end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from producers.control.lanes import CannotResume, Pause, choose
from schemas.values import PauseSource

AT = datetime(2027, 1, 1, tzinfo=UTC)
ALICE, BOB, AGAIN = (
    Pause(number, "gateway", PauseSource.OPERATOR, who, why, AT)
    for number, who, why in ((1, "alice", "upgrade"), (2, "bob", "fraud"), (3, "alice", "more"))
)
# An operator who is called as the guard is.
IMPOSTOR = Pause(4, "gateway", PauseSource.OPERATOR, "guard", "x", AT)
GUARD = Pause(5, "gateway", PauseSource.GUARD, "guard", "guard: silence", AT)


@pytest.mark.parametrize(
    ("pauses", "said", "ended"),
    [
        ([], {}, []),
        ([ALICE], {}, [ALICE]),
        ([ALICE, GUARD], {}, [ALICE]),
        ([GUARD], {}, []),
        ([GUARD], {"everybody": True}, []),
        ([ALICE, BOB, GUARD], {"everybody": True}, [ALICE, BOB]),
        ([ALICE, BOB, GUARD], {"guard": True}, [GUARD]),
        ([ALICE, BOB, GUARD], {"everybody": True, "guard": True}, [ALICE, BOB, GUARD]),
        ([ALICE, BOB, AGAIN], {"paused_by": "alice"}, [ALICE, AGAIN]),
        ([ALICE, BOB, AGAIN], {"numbers": [2, 3]}, [BOB, AGAIN]),
        ([IMPOSTOR, GUARD], {"paused_by": "guard"}, [IMPOSTOR]),
        ([GUARD], {"numbers": [5]}, [GUARD]),
    ],
)
def test_what_is_said_ends_and_nothing_else(
    pauses: list[Pause], said: dict[str, Any], ended: list[Pause]
) -> None:
    assert choose(pauses, **said) == ended


@pytest.mark.parametrize(
    ("pauses", "said", "words"),
    [
        ([ALICE, BOB], {}, "say which ends"),
        ([ALICE], {"numbers": [9]}, "no pause 9"),
        ([ALICE], {"paused_by": "carol"}, "no pause by 'carol'"),
        ([GUARD], {"paused_by": "guard"}, "no pause by 'guard'"),
        ([], {"numbers": [1]}, "not paused"),
    ],
)
def test_what_is_not_clear_ends_nothing(
    pauses: list[Pause], said: dict[str, Any], words: str
) -> None:
    with pytest.raises(CannotResume, match=words):
        choose(pauses, **said)
