import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from producers.ledger import ClaimedTask, Failure, Retry
from schemas.settings import load_settings
from workers.runtime.runtime import RetryPolicy, Runtime

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
        decision = policy.decide(failed_before(attempts), "driver_unknown", "HTTP 500", random)
        if isinstance(decision, Retry):
            assert 0 <= decision.delay <= policy.cap
            assert decision.delay <= policy.base * 2.0 ** min(attempts, 64)

    @given(policies, uniform)
    def test_retries_end_after_the_last_attempt_and_not_before(
        self, policy: RetryPolicy, random: float
    ) -> None:
        # When it fails again and again
        decisions = [
            policy.decide(failed_before(times), "declined", "", random)
            for times in range(policy.attempts)
        ]
        # Then all but the last are tried again.
        assert all(isinstance(decision, Retry) for decision in decisions[:-1])
        assert isinstance(decisions[-1], Failure)

    @given(policies, st.integers(0, 200), uniform)
    def test_failure_keeps_its_reason_and_error(
        self, policy: RetryPolicy, attempts: int, random: float
    ) -> None:
        decision = policy.decide(failed_before(attempts), "driver_unknown", "HTTP 500", random)
        assert (decision.subject, decision.reason, decision.error) == (
            SUBJECT,
            "driver_unknown",
            "HTTP 500",
        )

    def test_the_longest_delay_doubles_until_the_cap(self) -> None:
        policy = RetryPolicy(base=5, cap=60, attempts=10)
        delays = [policy.decide(failed_before(n), "r", "", 1 - 1e-12) for n in range(6)]
        longest = [d.delay for d in delays if isinstance(d, Retry)]
        assert longest == pytest.approx([5, 10, 20, 40, 60, 60])

    def test_the_jitter_is_full(self) -> None:
        policy = RetryPolicy(base=8, cap=60, attempts=10)
        for random, delay in ((0.0, 0.0), (0.25, 2.0), (0.5, 4.0)):
            decision = policy.decide(failed_before(0), "r", "", random)
            assert isinstance(decision, Retry)
            assert decision.delay == delay

    def test_failure_counts_an_attempt(self) -> None:
        decision = RetryPolicy(5, 60, 3).decide(failed_before(0), "r", "", 0.5)
        assert isinstance(decision, Retry)
        assert decision.counts


class TestMessages:
    @pytest.mark.parametrize(
        "subjects",
        [None, 5, "not-a-uuid", ["not-a-uuid"], [None], [5], [[]], [str(SUBJECT), "x"], {"a": 1}],
        ids=repr,
    )
    def test_message_without_subjects_does_nothing(self, subjects: Any) -> None:
        # Given a database that would fail if it were asked
        engine = create_engine("postgresql+psycopg://127.0.0.1:1/none", connect_args={})
        runtime = Runtime(engine, load_settings())

        class Never:
            name = "price"

            def run(self, *_: Any) -> Any:
                raise AssertionError("a forged message reached a handler")

        # Then the actor's body does not raise: the message is acknowledged.
        runtime.handle(Never(), "orders", subjects)
        runtime.close()
