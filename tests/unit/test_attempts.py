"""The shape of an attempt: what a port of another package may answer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from workers.billing.gateways.port import GatewayAnswer, GatewayState
from workers.outside import attempts
from workers.outside.attempts import attempt
from workers.outside.calls import run_now


class Port:
    immediate = False

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.performed = 0

    async def perform(self, operation: Any) -> Any:
        self.performed += 1
        return self.answer

    async def ask(self, operation: Any) -> Any:
        return self.answer

    async def close(self) -> None: ...


def tried(port: Port, *, in_doubt: bool = False) -> Any:
    return asyncio.run(
        attempt(port, "operation", in_doubt=in_doubt, is_decided=lambda answer: answer.is_decided)
    )


def test_answer_of_a_port_is_handed_on() -> None:
    answer = GatewayAnswer(GatewayState.SUCCEEDED, "reference")
    assert tried(Port(answer)) == answer


@pytest.mark.parametrize(
    "answer", [None, "succeeded", SimpleNamespace(state="succeeded", reason=None, words=None)]
)
@pytest.mark.parametrize("in_doubt", [False, True])
def test_what_is_no_answer_of_a_port_is_an_error_that_names_the_port(
    answer: Any, in_doubt: bool
) -> None:
    port = Port(answer)
    with pytest.raises(TypeError, match=r"Port .* answered no state of its port"):
        tried(port, in_doubt=in_doubt)
    assert port.performed == (0 if in_doubt else 1)


@pytest.mark.parametrize("in_doubt", [False, True])
def test_port_that_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, in_doubt: bool
) -> None:
    class Hanging(Port):
        async def perform(self, operation: Any) -> Any:
            await asyncio.sleep(60)

        ask = perform

    monkeypatch.setattr(attempts, "LONGEST_SECONDS", 0.05)
    with pytest.raises(TimeoutError, match=r"Hanging has not answered in 0\.05 s"):
        tried(Hanging(None), in_doubt=in_doubt)


def test_immediate_port_needs_no_event_loop() -> None:
    port = Port(GatewayAnswer(GatewayState.DECLINED))
    port.immediate = True
    call = attempt(port, "operation", in_doubt=False, is_decided=lambda answer: True)
    assert run_now(call) == port.answer
