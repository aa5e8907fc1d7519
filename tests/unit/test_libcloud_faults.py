"""What the driver of virtual machines makes of a provider that errs, hangs or talks nonsense."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from schemas.books import BookUnavailable
from schemas.values import ResourceState
from tests.support.ec2 import KEY, SECRET, Answer, Dropped, Ec2, answer_is_lost, error, says
from tests.support.far_side import FarSide
from tests.unit.test_libcloud import driver_of
from workers.conformance.drivers import Service
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.libcloud.call import Call
from workers.provisioning.drivers.libcloud.faults import NotUnderstood, Scrubber, answer_of
from workers.provisioning.drivers.port import DriverAnswer, DriverState, OperationKind

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
DONE, IN_PROGRESS = DriverState.DONE, DriverState.IN_PROGRESS
REFUSED, PERMANENT = DriverState.REFUSED, DriverState.PERMANENT
UNKNOWN, UNAVAILABLE = DriverState.UNKNOWN, DriverState.UNAVAILABLE
HTML = (200, {"Content-Length": "6"}, b"<html>")
OF_S3 = b'<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'


@pytest.fixture(scope="module")
def running() -> Iterator[Ec2]:
    with Ec2() as started:
        yield started


@pytest.fixture
def ec2(running: Ec2) -> Ec2:
    running.reset()
    return running


def drops(_asked: dict[str, str], _real: Callable[[], Answer]) -> Answer:
    raise Dropped


def trickles(far_side: FarSide, handler: BaseHTTPRequestHandler) -> None:
    """A header without end, a byte at a time."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not far_side.over.wait(0.05):
        try:
            handler.wfile.write(b"x")
        except OSError:
            return


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (error(400, "InstanceLimitExceeded"), REFUSED),
        (error(400, "VcpuLimitExceeded"), REFUSED),
        (error(400, "InvalidAMIID.NotFound"), REFUSED),
        (error(400, "InvalidParameterValue"), REFUSED),
        (error(400, "IdempotentParameterMismatch"), REFUSED),
        (error(500, "InsufficientInstanceCapacity"), REFUSED),
        (error(401, "AuthFailure"), PERMANENT),
        (error(403, "UnauthorizedOperation"), PERMANENT),
        (error(400, "OptInRequired"), PERMANENT),
        (error(503, "RequestLimitExceeded"), UNAVAILABLE),
        (error(400, "Throttling"), UNAVAILABLE),
        (error(500, "InternalError"), UNKNOWN),
    ],
    ids=lambda value: value[2].decode().split("Code>")[1][:-2] if isinstance(value, tuple) else "",
)
def test_error_of_a_creation_is_of_its_kind_and_has_its_code(
    ec2: Ec2, answer: Answer, state: DriverState
) -> None:
    with Waiting(driver_of(ec2.url)) as driver, ec2.fault("RunInstances", says(answer)):
        service = Service(driver)
        said = service.does(CREATE, 1)
        assert said.state is state
        assert f"<Code>{said.reason}</Code>" in answer[2].decode()
        assert bool(said.retry_after) is (state is UNAVAILABLE)
        assert service.state is ResourceState.ABSENT


@pytest.mark.parametrize(
    ("action", "fault", "state"),
    [
        pytest.param("RunInstances", drops, UNKNOWN, id="cut off while it creates"),
        pytest.param("RunInstances", says(HTML), UNKNOWN, id="no XML of a creation"),
        pytest.param("DescribeInstances", drops, UNAVAILABLE, id="cut off while it looks"),
        pytest.param("DescribeInstances", says(HTML), UNAVAILABLE, id="no XML of a list"),
        pytest.param("DescribeInstances", says((200, {}, OF_S3)), UNAVAILABLE, id="of S3"),
        pytest.param("DescribeInstances", says(error(500, "InternalError")), UNAVAILABLE, id="500"),
        pytest.param(
            "DescribeInstances",
            says((302, {"Location": "http://127.0.0.1:1/", "Content-Length": "0"}, b"")),
            UNAVAILABLE,
            id="a redirect",
        ),
    ],
)
def test_what_may_have_been_done_is_unknown_and_a_look_is_not(
    ec2: Ec2, action: str, fault: Any, state: DriverState
) -> None:
    with Waiting(driver_of(ec2.url)) as driver:
        service = Service(driver)
        with ec2.fault(action, fault):
            said = service.does(CREATE, 1)
        assert (said.state, bool(said.reason)) == (state, True)
        if action == "DescribeInstances":
            assert "RunInstances" not in ec2.actions()


def test_list_that_cannot_be_read_is_no_empty_list(ec2: Ec2) -> None:
    with (
        Waiting(driver_of(ec2.url)) as driver,
        ec2.fault("*", says((200, {}, OF_S3))),
        pytest.raises(BookUnavailable, match="not_understood"),
    ):
        driver.resources(None)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "RequestLimitExceeded"),
        (400, "InvalidParameterValue"),
        (403, "UnauthorizedOperation"),
        (403, "Odd"),
        (409, "Odd"),
        (401, "AuthFailure"),
        (500, "InsufficientInstanceCapacity"),
        (500, "InternalError"),
    ],
)
def test_look_that_fails_after_a_creation_leaves_it_unknown(
    ec2: Ec2, status: int, code: str
) -> None:
    def only_before(asked: dict[str, str], real: Callable[[], Answer]) -> Answer:
        return error(status, code) if "RunInstances" in ec2.actions() else real()

    with Waiting(driver_of(ec2.url)) as driver:
        service = Service(driver)
        with ec2.fault("DescribeInstances", only_before):
            said = service.does(CREATE, 1)
        assert (said.state, said.reason) == (UNKNOWN, code)
        assert service.state is ResourceState.ACTIVE


@pytest.mark.parametrize(
    ("status", "code"), [(403, "UnauthorizedOperation"), (400, "Odd"), (503, "Throttling")]
)
def test_creation_whose_second_machine_cannot_be_deleted_is_unknown(
    ec2: Ec2, status: int, code: str
) -> None:
    # Given a machine that another worker's creation does not see in time
    shown: list[Answer] = []

    def none_before(asked: dict[str, str], real: Callable[[], Answer]) -> Answer:
        if not shown:
            shown.append(real())
        return shown[0] if ec2.actions().count("RunInstances") < 2 else real()

    with Waiting(driver_of(ec2.url)) as driver, Waiting(driver_of(ec2.url)) as other:
        service = Service(driver)
        with ec2.fault("DescribeInstances", none_before):
            other.ask(service.operation(CREATE, 1))
            driver.perform(service.operation(CREATE, 1))
            # When both are there, and the provider refuses to delete one
            with ec2.fault("TerminateInstances", says(error(status, code))):
                said = other.perform(service.operation(CREATE, 2))
        # Then that is no answer to the creation.
        assert "TerminateInstances" in ec2.actions()
        assert (said.state, said.reason) == (UNKNOWN, code)


def test_machine_that_is_not_shown_yet_after_a_creation_is_in_progress(ec2: Ec2) -> None:
    def only_before(asked: dict[str, str], real: Callable[[], Answer]) -> Answer:
        not_yet = error(400, "InvalidInstanceID.NotFound")
        return not_yet if "RunInstances" in ec2.actions() else real()

    with Waiting(driver_of(ec2.url)) as driver:
        with ec2.fault("DescribeInstances", only_before):
            # Sent once, not asked about again.
            said = driver.perform(Service(driver).operation(CREATE, 1))
        assert said.state is IN_PROGRESS


def test_machine_between_two_states_is_in_progress(ec2: Ec2) -> None:
    with Waiting(driver_of(ec2.url)) as driver:
        service = Service(driver)
        service.does(CREATE, 1)
        with ec2.fault("StopInstances", says(error(400, "IncorrectInstanceState"))):
            said = driver.perform(service.operation(SUSPEND, 2))
        assert (said.state, said.reason) == (IN_PROGRESS, "IncorrectInstanceState")


@pytest.mark.parametrize("kind", [SUSPEND, RESUME, TERMINATE])
def test_change_whose_answer_is_lost_is_unknown_and_repeated(ec2: Ec2, kind: OperationKind) -> None:
    action = {SUSPEND: "StopInstances", RESUME: "StartInstances", TERMINATE: "TerminateInstances"}
    with Waiting(driver_of(ec2.url)) as driver:
        service = Service(driver)
        service.does(CREATE, 1)
        if kind is RESUME:
            service.does(SUSPEND, 2)
        operation = service.operation(kind, 3)
        with ec2.fault(action[kind], answer_is_lost):
            assert driver.perform(operation).state is UNKNOWN
        assert service.perform(operation).state is DONE


class TestTime:
    def test_header_without_end_holds_no_thread_beyond_the_deadline(self) -> None:
        with FarSide(trickles) as far_side:
            driver = driver_of(far_side.url, seconds=0.4, threads=1)
            with Waiting(driver) as waiting:
                service = Service(waiting)
                # Had the first call kept its only thread, the others would find none.
                for _ in range(4):
                    started = time.monotonic()
                    said = waiting.ask(service.operation(CREATE, 1))
                    assert said.state is UNAVAILABLE
                    assert said.reason != "no_thread_free"
                    assert time.monotonic() - started < 10

    def test_hanging_provider_leaves_the_event_loop_free(self, ec2: Ec2) -> None:
        def hangs(_asked: dict[str, str], real: Callable[[], Answer]) -> Answer:
            ec2.over.wait(3)
            return real()

        longest = 0.0

        async def tick() -> None:
            nonlocal longest
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - before)

        async def run(driver: Any, service: Service) -> list[DriverAnswer]:
            ticking = asyncio.create_task(tick())
            operations = [service.operation(CREATE, 1) for _ in range(3)]
            answers = await asyncio.gather(*(driver.ask(one) for one in operations))
            ticking.cancel()
            return list(answers)

        driver = driver_of(ec2.url, seconds=0.5, threads=1)
        with Waiting(driver) as waiting, ec2.fault("DescribeInstances", hangs):
            started = time.monotonic()
            answers = waiting.run(run(driver, Service(waiting)))
            assert time.monotonic() - started < 8  # and not 9
        assert {answer.state for answer in answers} == {UNAVAILABLE}
        # Those that wait for the only thread are told in time, too.
        reasons = {answer.reason for answer in answers}
        assert reasons <= {"no_answer", "no_thread_free", "no_time"}
        assert longest < 2  # and not 3

    def test_nothing_is_sent_after_the_deadline(self, ec2: Ec2) -> None:
        def slow(_asked: dict[str, str], real: Callable[[], Answer]) -> Answer:
            ec2.over.wait(0.5)
            return real()

        with Waiting(driver_of(ec2.url, seconds=0.3)) as driver:
            with ec2.fault("DescribeInstances", slow):
                assert Service(driver).does(CREATE, 1).state is UNAVAILABLE
                ec2.over.wait(0.6)
            assert "RunInstances" not in ec2.actions()


class TestSecrets:
    def test_credential_is_in_no_answer_log_or_text(
        self, ec2: Ec2, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        words = f"{KEY} signed with {SECRET} is not known"
        driver = driver_of(ec2.url)
        with Waiting(driver) as waiting:
            service = Service(waiting)
            said = [service.does(CREATE, 1)]
            for status, code in ((401, "AuthFailure"), (400, "Odd"), (500, "InternalError")):
                with ec2.fault("*", says(error(status, code, words))):
                    said.append(service.does(SUSPEND, 2))
                    with pytest.raises(BookUnavailable) as failed:
                        waiting.resources(None)
                    assert SECRET not in str(failed.value)
            with ec2.fault("*", drops):
                said.append(service.does(SUSPEND, 2))
        assert any("signed with" in (answer.words or "") for answer in said)
        seen = f"{said} {caplog.text} {driver._settings!r} {vars(driver)}"
        assert SECRET not in seen
        assert KEY not in seen

    @pytest.mark.parametrize("said", [SECRET, SECRET[:9] + "\u200b" + SECRET[9:]])
    def test_words_that_were_not_understood_show_no_secret_and_are_short(self, said: str) -> None:
        call = Call(1)
        answer = answer_of(NotUnderstood(f"\x00{said}{'x' * 5000}"), call, Scrubber([SECRET]))
        assert (answer.state, answer.reason) == (UNAVAILABLE, "not_understood")
        assert answer.words == "***" + "x" * 497

    def test_secret_of_several_lines_is_not_shown_in_one(self) -> None:
        lines = "-----BEGIN-----\nMIIE0123456789\n-----END-----\n"
        scrubber = Scrubber([lines])
        assert scrubber.clean(f"key {lines} is wrong") == "key *** is wrong"
        assert scrubber.clean("key " + lines.replace("\n", "")) == "key ***"

    def test_code_is_at_most_a_hundred_characters(self) -> None:
        call = Call(1)
        call.status = 400
        answer = answer_of(Exception(f"{'C' * 300}: no"), call, Scrubber([]))
        assert (answer.state, answer.reason, answer.words) == (REFUSED, "C" * 100, "no")

    def test_credential_is_not_in_the_urls_of_ec2(self, ec2: Ec2) -> None:
        with Waiting(driver_of(ec2.url)) as driver:
            Service(driver).does(CREATE, 1)
        assert KEY not in str(ec2.requests)
        assert SECRET not in str(ec2.requests)
