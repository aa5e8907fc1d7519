"""Every background loop: it goes on after any error, and stops when it is asked to."""

import logging
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from monitoring import metrics
from producers.loop import Loop
from schemas.errors import ConfigurationError

FIRST, LONGEST = 0.001, 0.004


class Lost(Exception):
    """Stands for what a broker's client raises."""


def run(*outcomes: Exception | float, causes: dict[type[Exception], str] | None = None) -> Loop:
    """Run a loop whose rounds fail or succeed as listed; it stops after the last one."""
    remaining: Iterator[Exception | float] = iter(outcomes)

    def play() -> float:
        outcome = next(remaining, None)
        if outcome is None:
            loop.stop()
            return 0.0
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    loop = Loop("test", play, causes=causes, first_pause=FIRST, longest_pause=LONGEST)
    loop.run()
    return loop


@pytest.fixture(autouse=True)
def every_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "producers.loop")


def pauses(caplog: pytest.LogCaptureFixture) -> list[float]:
    """How long the loop waited after each error."""
    found = []
    for record in caplog.records:
        assert isinstance(record.args, tuple)
        pause = record.args[2]
        assert isinstance(pause, float)
        found.append(pause)
    return found


def counted(cause: str) -> Callable[[], float]:
    return metrics.loop_failures.labels("test", cause)._value.get  # type: ignore[no-any-return]


def test_loop_survives_an_error_nobody_foresaw_and_logs_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = counted("defect")()

    run(StopIteration(), 0.0)

    (record,) = caplog.records
    assert record.getMessage().startswith("test: StopIteration(); again in 0.0 s")
    assert record.exc_info is not None
    assert record.levelno == logging.ERROR
    assert counted("defect")() == before + 1


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Lost("connection reset"), "broker"),
        (OperationalError("SELECT 1", {}, psycopg.OperationalError("gone\nhint")), "database"),
        (ConfigurationError("no catalogue"), "configuration"),
        (ConnectionRefusedError("refused"), "system"),
    ],
)
def test_foreseen_error_is_one_line_without_a_traceback(
    error: Exception, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = counted(cause)()

    run(error, causes={Lost: "broker"})

    (record,) = caplog.records
    assert record.exc_info in (None, False)
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    assert counted(cause)() == before + 1


def test_statement_that_the_database_does_not_understand_is_a_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(ProgrammingError("SELECT 1", {}, psycopg.errors.UndefinedColumn("no column x")))

    (record,) = caplog.records
    assert "test: no column x; again" in record.getMessage()
    assert record.exc_info is not None


def test_pause_doubles_up_to_the_longest_and_is_shortened_at_random(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(*[Lost("gone")] * 5)

    whole = [FIRST, 2 * FIRST, LONGEST, LONGEST, LONGEST]
    for found, longest in zip(pauses(caplog), whole, strict=True):
        assert longest / 2 <= found <= longest


def test_round_that_succeeds_ends_the_backoff(caplog: pytest.LogCaptureFixture) -> None:
    run(Lost("gone"), Lost("gone"), Lost("gone"), 0.0, Lost("gone"))

    assert pauses(caplog)[-1] <= FIRST < pauses(caplog)[-2]


def test_round_that_went_well_for_long_before_it_failed_ends_the_backoff(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.loop.HEALTHY_SECONDS", 0.0)

    run(*[Lost("gone")] * 4)

    assert all(pause <= FIRST for pause in pauses(caplog))


def test_loop_waits_as_long_as_the_round_says() -> None:
    waited: list[float] = []

    class Watched(Loop):
        def _wait(self, seconds: float) -> None:
            waited.append(seconds)
            self.stop()

    Watched("test", lambda: 3.5).run()

    assert waited == [3.5]


def test_stop_ends_a_wait_at_once() -> None:
    done = threading.Event()

    def work() -> float:
        done.set()
        return 3600.0

    loop = Loop("test", work)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    assert done.wait(10)

    loop.stop()

    thread.join(10)
    assert not thread.is_alive()
    assert loop.is_stopping


def test_loop_that_is_stopped_before_it_starts_does_nothing() -> None:
    rounds: list[float] = []
    loop = Loop("test", lambda: rounds.append(1.0) or 0.0)
    loop.stop()

    loop.run()

    assert rounds == []


def test_interrupt_from_the_keyboard_is_no_error_to_wait_out() -> None:
    def interrupted() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Loop("test", interrupted).run()


BROKER = {Lost: "broker"}


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records]


def test_outage_is_one_line_however_often_it_is_retried_and_whatever_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(Lost("connection reset"), Lost("refused"), Lost("starting up"), causes=BROKER)

    assert levels(caplog) == ["WARNING", "DEBUG", "DEBUG"]


def test_outage_of_another_kind_is_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    run(Lost("gone"), OSError("no route"), Lost("gone"), causes=BROKER)

    assert levels(caplog) == ["WARNING", "WARNING", "WARNING"]


def test_outage_that_lasts_is_said_again_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.loop.REMIND_SECONDS", 0.0)

    run(Lost("gone"), Lost("gone"), causes=BROKER)

    assert levels(caplog) == ["WARNING", "WARNING"]


def test_end_of_an_outage_is_said_with_how_long_it_took(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.loop.STEADY_SECONDS", 0.0)

    run(Lost("gone"), Lost("gone"), 0.0, Lost("gone"), causes=BROKER)

    assert levels(caplog)[:4] == ["WARNING", "DEBUG", "INFO", "WARNING"]
    assert caplog.records[2].getMessage() == "test: works again after 0.0 s, 2 failures"


def test_one_good_round_between_bad_ones_ends_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    run(Lost("gone"), 0.0, Lost("gone"), 0.0, Lost("gone"), causes=BROKER)

    assert levels(caplog) == ["WARNING", "DEBUG", "DEBUG"]


def test_defect_that_repeats_has_one_traceback(caplog: pytest.LogCaptureFixture) -> None:
    run(ValueError("a"), ValueError("a"), ValueError("b"))

    assert [bool(record.exc_info) for record in caplog.records] == [True, False, True]


def test_what_is_no_outage_is_said_each_time(caplog: pytest.LogCaptureFixture) -> None:
    run(Lost("died"), Lost("died"), causes={Lost: "crashed"})

    assert levels(caplog) == ["WARNING", "WARNING"]


def test_loop_does_something_meanwhile_while_it_waits() -> None:
    calls: list[int] = []

    def serve() -> None:
        calls.append(1)
        loop.stop()

    loop = Loop("test", lambda: 3600.0, meanwhile=serve)
    loop.run()

    assert calls == [1]
