import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from producers.ledger import ClaimedTask, Failure, Retry
from schemas.clock import SystemClock
from schemas.settings import load_settings
from workers.runtime.retries import RetryPolicy, jittered, policy_for
from workers.runtime.runtime import Runtime

SUBJECT = uuid.UUID(int=1)

policies = st.builds(
    RetryPolicy,
    base=st.floats(0.001, 1e4),
    cap=st.floats(0.001, 1e6),
    attempts=st.integers(1, 100),
)
uniform = st.floats(0, 1, exclude_max=True)


def failed_before(times: int) -> ClaimedTask:
    return ClaimedTask(SUBJECT, wanted=1, attempts=times, waited=0.0)


class TestRetryPolicy:
    @given(policies, st.integers(0, 10_000), uniform)
    def test_a_delay_is_within_its_bounds(
        self, policy: RetryPolicy, attempts: int, random: float
    ) -> None:
        decision = policy.decide(failed_before(attempts), "driver_unknown", "HTTP 500")
        if isinstance(decision, Retry):
            delay = jittered(decision, random).delay
            assert 0 <= delay <= policy.cap
            assert delay <= policy.base * 2.0 ** min(attempts, 64)

    @given(policies)
    def test_retries_end_after_the_last_attempt_and_not_before(self, policy: RetryPolicy) -> None:
        # When it fails again and again
        decisions = [
            policy.decide(failed_before(times), "declined", "") for times in range(policy.attempts)
        ]
        # Then all but the last are tried again.
        assert all(isinstance(decision, Retry) for decision in decisions[:-1])
        assert isinstance(decisions[-1], Failure)

    @given(policies, st.integers(0, 200))
    def test_failure_keeps_its_reason_and_error(self, policy: RetryPolicy, attempts: int) -> None:
        decision = policy.decide(failed_before(attempts), "driver_unknown", "HTTP 500")
        assert (decision.subject, decision.reason, decision.error) == (
            SUBJECT,
            "driver_unknown",
            "HTTP 500",
        )

    def test_the_longest_delay_doubles_until_the_cap(self) -> None:
        policy = RetryPolicy(base=5, cap=60, attempts=10)
        ceilings = [policy.decide(failed_before(n), "r", "") for n in range(6)]
        longest = [d.delay for d in ceilings if isinstance(d, Retry)]
        assert longest == pytest.approx([5, 10, 20, 40, 60, 60])

    def test_the_jitter_is_full(self) -> None:
        decision = RetryPolicy(base=8, cap=60, attempts=10).decide(failed_before(0), "r", "")
        assert isinstance(decision, Retry)
        assert [jittered(decision, random).delay for random in (0.0, 0.25, 0.5)] == [0.0, 2.0, 4.0]

    def test_a_delay_that_is_no_ceiling_is_not_jittered(self) -> None:
        retry = Retry(SUBJECT, "declined", delay=60.0, counts=False)
        assert jittered(retry, 0.5) == retry

    def test_failure_counts_an_attempt(self) -> None:
        decision = RetryPolicy(5, 60, 3).decide(failed_before(0), "r", "")
        assert isinstance(decision, Retry)
        assert decision.counts

    def test_each_kind_of_far_side_may_have_a_policy_of_its_own(self) -> None:
        settings = load_settings(
            retry_base_seconds=1, retry_cap_seconds=60, retry_attempts=5,
            retries={"mail": {"attempts": 24}, "driver": {"base_seconds": 30, "cap_seconds": 900}},
        )  # fmt: skip
        assert policy_for("gateway", settings) == RetryPolicy(1, 60, 5)
        assert policy_for("mail", settings) == RetryPolicy(1, 60, 24)
        assert policy_for("driver", settings) == RetryPolicy(30, 900, 5)


class TestMessages:
    @pytest.mark.parametrize(
        "subjects",
        [None, 5, "not-a-uuid", ["not-a-uuid"], [None], [5], [[]], [str(SUBJECT), "x"], {"a": 1}],
        ids=repr,
    )
    def test_message_without_subjects_does_nothing(self, subjects: Any) -> None:
        # Given a database that would fail if it were asked
        engine = create_engine("postgresql+psycopg://127.0.0.1:1/none", connect_args={})
        runtime = Runtime(engine, load_settings(), SystemClock())

        class Never:
            name = "price"

            def run(self, *_: Any) -> Any:
                raise AssertionError("a forged message reached a handler")

        # Then the actor's body does not raise: the message is acknowledged.
        runtime.handle(Never(), "orders", subjects)
        runtime.close()
