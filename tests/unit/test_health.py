"""When a process opens a lane, and what it spares the tasks that failed there."""

import uuid
from typing import Any
from unittest.mock import Mock

from producers.ledger import Claim, ClaimedTask, Failure, Outcome, Retry
from schemas.settings import BreakerSettings
from workers.outside.health import GOOD, Action, Breakers, Health, spared

BAD = Health(False, "HTTP 500")


def claim(count: int = 1, *, is_probe: bool = False) -> Claim:
    tasks = tuple(ClaimedTask(uuid.uuid4(), 1, 0, 0.0) for _ in range(count))
    return Claim("converge", "web", uuid.uuid4(), tasks, "driver:web", is_probe)


def breakers(**settings: Any) -> Breakers:
    return Breakers(Mock(), BreakerSettings(**settings))


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
    assert ours.observe(many, answers(many, BAD)).action is Action.OPEN
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
