"""When a process opens a lane, and what it spares the tasks that failed there."""

import time
import uuid
from typing import Any
from unittest.mock import MagicMock

import pytest
from sqlalchemy.exc import OperationalError

from producers.ledger import Claim, ClaimedTask, Failure, Outcome, Retry
from schemas.settings import BreakerSettings
from workers.outside.health import GOOD, Action, Breakers, Health, spared

BAD = Health(False, "HTTP 500")


def claim(count: int = 1, *, is_probe: bool = False) -> Claim:
    tasks = tuple(ClaimedTask(uuid.uuid4(), 1, 0, 0.0) for _ in range(count))
    return Claim("converge", "web", uuid.uuid4(), tasks, "driver:web", is_probe)


def breakers(**settings: Any) -> Breakers:
    return Breakers(MagicMock(), BreakerSettings(**settings))


def answers(of: Claim, health: Health) -> list[tuple[uuid.UUID, Health]]:
    return [(subject, health) for subject in of.subjects]


def test_lane_opens_when_its_calls_keep_failing() -> None:
    ours = breakers(failures=5)
    few = claim(4)
    assert ours.observe(few, answers(few, BAD)).action is Action.NONE
    more = claim(1)
    verdict = ours.observe(more, answers(more, BAD))
    assert (verdict.action, verdict.is_open, verdict.reason) == (Action.OPEN, True, "HTTP 500")
    assert ours.is_open("driver:web")
    assert not ours.is_open("driver:cloud")


def test_lane_in_which_some_calls_succeed_stays_closed() -> None:
    ours = breakers(failures=5)
    for _ in range(10):
        one, other = claim(), claim()
        assert ours.observe(one, answers(one, BAD)).action is Action.NONE
        assert ours.observe(other, answers(other, GOOD)).action is Action.NONE


def test_one_subject_that_always_fails_opens_no_lane() -> None:
    ours = breakers(failures=5)
    one = claim()
    for _ in range(30):
        assert ours.observe(one, answers(one, BAD)).action is Action.NONE


def test_a_lane_that_is_open_is_opened_once() -> None:
    ours = breakers(failures=5)
    many = claim(20)
    verdict = ours.observe(many, answers(many, BAD))
    assert verdict.action is Action.OPEN
    ours.act(verdict)
    late = claim(20)
    verdict = ours.observe(late, answers(late, BAD))
    assert (verdict.action, verdict.is_open) == (Action.NONE, True)


def test_far_side_that_asks_to_be_left_alone_is_obeyed_at_once() -> None:
    ours = breakers(failures=20)
    one = claim()
    verdict = ours.observe(one, [(one.subjects[0], Health(False, "HTTP 429", retry_after=7.0))])
    assert (verdict.action, verdict.retry_after) == (Action.OPEN, 7.0)


def test_probe_that_is_answered_closes_the_lane() -> None:
    ours = breakers(failures=5)
    many = claim(5)
    ours.observe(many, answers(many, BAD))
    probe = claim(is_probe=True)
    assert ours.observe(probe, answers(probe, BAD)).action is Action.OPEN_LONGER
    verdict = ours.observe(probe, answers(probe, GOOD))
    assert (verdict.action, verdict.is_open) == (Action.CLOSE, False)
    assert not ours.is_open("driver:web")


def test_probe_of_another_process_closes_the_lane() -> None:
    probe = claim(is_probe=True)
    assert breakers().observe(probe, answers(probe, GOOD)).action is Action.CLOSE


def test_what_failed_in_an_open_lane_uses_up_no_attempt() -> None:
    away, wrong = uuid.uuid4(), uuid.uuid4()
    outcome = spared(
        Outcome(
            retries=[Retry(away, "driver_unavailable", "no", delay=600.0, jitter=True)],
            failures=[Failure(wrong, "driver_refused", "quota", "quota_exceeded")],
        ),
        [away],
    )
    assert [(r.subject, r.counts, r.delay) for r in outcome.retries] == [(away, False, 1.0)]
    assert [failure.subject for failure in outcome.failures] == [wrong]


def test_last_attempt_of_what_failed_in_an_open_lane_is_not_its_end() -> None:
    away = uuid.uuid4()
    outcome = spared(Outcome(failures=[Failure(away, "driver_unavailable", "no")]), [away])
    assert not outcome.failures
    assert [(r.subject, r.counts, r.reason) for r in outcome.retries] == [
        (away, False, "driver_unavailable")
    ]


def asking(seconds: float) -> Health:
    return Health(False, "HTTP 429", retry_after=seconds)


@pytest.mark.parametrize("seconds", [0.0, -5.0, float("nan")])
def test_far_side_that_asks_for_no_time_is_not_called_in_a_circle(seconds: float) -> None:
    ours = breakers(failures=5)
    one = claim()
    assert ours.observe(one, answers(one, asking(seconds))).action is Action.NONE
    probe = claim(is_probe=True)
    verdict = ours.observe(probe, answers(probe, asking(seconds)))
    assert (verdict.action, verdict.retry_after) == (Action.OPEN_LONGER, None)


@pytest.mark.parametrize(
    ("said", "waited"), [(0.001, 1.0), (7.0, 7.0), (1e9, 3600.0), (float("inf"), 3600.0)]
)
def test_wait_that_a_far_side_asks_for_is_a_second_to_an_hour(said: float, waited: float) -> None:
    one = claim()
    assert breakers().observe(one, answers(one, asking(said))).retry_after == waited


def test_of_many_calls_at_once_the_longest_wait_counts() -> None:
    ours = breakers()
    first, second = claim(), claim()
    ours.act(ours.observe(first, answers(first, asking(2.0))))
    verdict = ours.observe(second, answers(second, asking(60.0)))
    assert (verdict.action, verdict.retry_after) == (Action.OPEN, 60.0)
    assert ours.observe(second, answers(second, asking(30.0))).action is Action.NONE


def test_lane_that_somebody_has_closed_is_called_again_at_once() -> None:
    ours = breakers()
    one, later = claim(), claim()
    ours.act(ours.observe(one, answers(one, asking(3000.0))))
    assert ours.is_open("driver:web")
    ours.claimed(claim(is_probe=True), time.monotonic())
    assert ours.is_open("driver:web")  # a probe is claimed while it is open
    ours.claimed(later, time.monotonic())
    assert not ours.is_open("driver:web")


def test_claim_from_before_a_lane_opened_does_not_close_it() -> None:
    ours = breakers()
    one, before = claim(), time.monotonic()
    verdict = ours.observe(one, answers(one, asking(3000.0)))
    ours.claimed(claim(), time.monotonic())  # not written down yet: others still claim
    assert ours.is_open("driver:web")
    ours.act(verdict)
    ours.claimed(claim(), before)
    assert ours.is_open("driver:web")


def test_lane_that_could_not_be_opened_for_the_fleet_is_opened_with_the_next_answer() -> None:
    engine = MagicMock()
    engine.begin.side_effect = OperationalError("INSERT", None, Exception("gone"))
    ours = Breakers(engine, BreakerSettings(failures=5))
    many, late = claim(5), claim()
    verdict = ours.observe(many, answers(many, BAD))
    ours.act(verdict)
    assert ours.observe(late, answers(late, BAD)) == verdict
