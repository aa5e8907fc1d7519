"""Every gateway of ours passes the conformance suite; what only the one over HTTP does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import pytest
from prometheus_client import REGISTRY

from autorenew.local.ports import free_port
from schemas.books import BookUnavailable
from simulator.server import Running
from tests.support.far_side import FarSide, answers, drops, hangs
from tests.support.proxy import Proxy, loses_the_answer
from workers.billing.gateways.http import HttpGateway
from workers.billing.gateways.instant import InstantGateway
from workers.billing.gateways.port import Charge, Gateway, GatewayAnswer, GatewayState, Refund
from workers.conformance import GatewayConformance
from workers.conformance.gateways import charge_of, refund_of, whole
from workers.conformance.waiting import Waiting

SUCCEEDED, DECLINED = GatewayState.SUCCEEDED, GatewayState.DECLINED
NOT_FOUND, UNKNOWN = GatewayState.NOT_FOUND, GatewayState.UNKNOWN


@pytest.fixture(scope="module")
def simulator() -> Iterator[Running]:
    with Running() as running:
        yield running


class TestInstantGateway(GatewayConformance):
    @pytest.fixture
    def gateway(self) -> Gateway:
        return InstantGateway()


class TestHttpGateway(GatewayConformance):
    @pytest.fixture
    def gateway(self, simulator: Running) -> Gateway:
        return over_http(f"{simulator.url}/gateway", seconds=5)

    @pytest.fixture
    def new_gateway(self) -> Iterator[Gateway]:
        with Running() as simulator:
            yield over_http(f"{simulator.url}/gateway", seconds=5)
        simulator.simulator.store.close()

    @pytest.fixture
    def unreachable(self) -> Gateway:
        return over_http(f"http://127.0.0.1:{free_port()}", seconds=0.3)

    @pytest.fixture
    def deaf(self, simulator: Running) -> Iterator[Gateway]:
        with Proxy(int(simulator.url.rpartition(":")[2]), repeat(loses_the_answer)) as proxy:
            yield over_http(f"http://127.0.0.1:{proxy.port}/gateway", seconds=0.5)


def over_http(url: str, **settings: Any) -> HttpGateway:
    return HttpGateway("tested", HttpGateway.Settings(url=url, **settings))


@contextmanager
def asking(url: str, **settings: Any) -> Iterator[Waiting]:
    with Waiting(over_http(url, **settings)) as waiting:
        yield waiting


def said(charge: Charge | Refund, state: str = "succeeded", **more: Any) -> dict[str, Any]:
    """What a gateway that keeps to the rules answers."""
    about = {"key": charge.key, "amount": charge.amount.amount, "currency": "EUR"}
    return {**about, "state": state, **more}


def ask(gateway: Waiting) -> list[GatewayAnswer]:
    """A call and a question."""
    charge = charge_of()
    return [gateway.perform(refund_of(charge, 1)), gateway.ask(charge)]


CHARGE = charge_of(4544, key="key-1")
SAID = said(CHARGE)


class TestOverHttp:
    def test_gateway_that_hangs_is_unknown_within_the_deadline(self) -> None:
        with FarSide(hangs) as far_side, asking(far_side.url, seconds=0.3) as gateway:
            started = time.monotonic()
            answer = gateway.perform(charge_of())
            assert answer.state is UNKNOWN
            assert answer.reason
            assert time.monotonic() - started < 10

    def test_unreachable_gateway_has_certainly_not_charged(self) -> None:
        with asking(f"http://127.0.0.1:{free_port()}", seconds=0.2) as gateway:
            assert {answer.state for answer in ask(gateway)} == {GatewayState.UNAVAILABLE}

    @pytest.mark.parametrize(
        "step",
        [
            pytest.param(drops, id="dropped"),
            pytest.param(answers(500, SAID), id="500"),
            pytest.param(answers(503, b"busy"), id="503"),
            pytest.param(answers(200, b"<html>"), id="not JSON"),
            pytest.param(answers(200, []), id="not an object"),
            pytest.param(answers(200, {}), id="nothing in it"),
            pytest.param(answers(200, {"state": "succeeded"}), id="nothing about what"),
            pytest.param(answers(200, SAID | {"state": "paid"}), id="an unknown state"),
            pytest.param(answers(200, SAID | {"state": ["succeeded"]}), id="a state in a list"),
            pytest.param(answers(200, SAID | {"amount": 4543}), id="another amount"),
            pytest.param(answers(200, SAID | {"amount": "4544"}), id="an amount that is a text"),
            pytest.param(answers(200, SAID | {"amount": 4544.5}), id="an amount with a fraction"),
            pytest.param(answers(200, SAID | {"currency": "CZK"}), id="another currency"),
            pytest.param(answers(200, SAID | {"key": "key-2"}), id="another key"),
            pytest.param(answers(402, SAID | {"key": "key-2"}), id="a decline of another key"),
            pytest.param(answers(202, SAID), id="202"),
            pytest.param(answers(302, SAID), id="a redirect"),
            pytest.param(answers(400, SAID | {"state": "declined"}), id="400"),
            pytest.param(answers(401, {}), id="401"),
            pytest.param(answers(404, b"<html>"), id="a page not found"),
            pytest.param(answers(422, {"code": "key_reused"}), id="key reused"),
            pytest.param(answers(429, {}), id="429"),
        ],
    )
    def test_malformed_answer_is_unknown(self, step: Any) -> None:
        with FarSide(step) as far_side, asking(far_side.url, seconds=0.05) as gateway:
            assert gateway.perform(CHARGE).state is UNKNOWN
            assert gateway.ask(CHARGE).state is UNKNOWN

    @pytest.mark.parametrize("status", [429, 503])
    def test_gateway_that_says_when_to_come_back_is_not_called_again(self, status: int) -> None:
        with (
            FarSide(answers(status, b"<html>", Retry_After="90")) as far_side,
            asking(far_side.url, seconds=1) as gateway,
        ):
            assert {(a.state, a.retry_after) for a in ask(gateway)} == {(UNKNOWN, 90.0)}
            assert len(far_side.requests) == 2

    def test_not_found_is_valid_only_as_the_answer_to_a_query(self) -> None:
        with (
            FarSide(answers(404, {"code": "not_found"})) as far_side,
            asking(far_side.url, seconds=1) as gateway,
        ):
            assert [answer.state for answer in ask(gateway)] == [UNKNOWN, NOT_FOUND]

    def test_calls_are_counted_by_outcome(self) -> None:
        def counted() -> list[float]:
            labels = [
                {"target": "gateway:tested", "operation": "find_charge", "outcome": outcome}
                for outcome in ("succeeded", "declined", "unknown", "unavailable")
            ]
            name = "autorenew_calls_total"
            return [REGISTRY.get_sample_value(name, each) or 0.0 for each in labels]

        before = counted()
        steps = answers(200, SAID), answers(200, said(CHARGE, "declined"))
        with FarSide(*steps, answers(400, {})) as far_side, asking(far_side.url) as gateway:
            for _ in range(3):
                gateway.ask(CHARGE)
        with asking(f"http://127.0.0.1:{free_port()}", seconds=0.1) as gateway:
            gateway.ask(CHARGE)
        assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 1, 1]

    def test_a_decline_is_a_decline_with_its_reason(self) -> None:
        declined = answers(402, said(CHARGE, "declined", reason="stolen_card"))
        with FarSide(declined) as far_side, asking(far_side.url) as gateway:
            answer = gateway.perform(CHARGE)
            assert (answer.state, answer.reason) == (DECLINED, "stolen_card")

    def test_texts_of_an_answer_can_be_shown_and_kept(self) -> None:
        shown = said(CHARGE, reason="a\x00b\nc" + "d" * 1000, reference="r\u202e1")
        with FarSide(answers(200, shown)) as far_side, asking(far_side.url) as gateway:
            answer = gateway.perform(CHARGE)
            assert answer.reason == "abc" + "d" * 497
            assert answer.reference == "r1"

    def test_a_charge_says_what_the_gateway_needs_to_know(self) -> None:
        with (
            FarSide(answers(201, SAID)) as far_side,
            asking(far_side.url + "/", token="secret") as gateway,
        ):
            gateway.perform(CHARGE)
            method, path, headers, body = far_side.requests[0]
            assert (method, path) == ("POST", "/charges")
            assert headers["authorization"] == "Bearer secret"
            assert body == {
                "key": "key-1",
                "amount": 4544,
                "currency": "EUR",
                "token": "tok_1",
                "customer": "c-1",
            }

    def test_every_try_of_a_call_carries_the_same_key(self) -> None:
        steps = answers(500, {}), drops, answers(201, SAID)
        with FarSide(*steps) as far_side, asking(far_side.url, seconds=5) as gateway:
            assert gateway.perform(CHARGE).state is SUCCEEDED
            assert len(far_side.requests) == 3
            assert {request[3]["key"] for request in far_side.requests} == {"key-1"}

    def test_a_book_is_read_page_by_page_until_one_is_empty(self) -> None:
        def page(*numbers: int) -> Any:
            entries = [
                {"number": n, "kind": "charge", "key": f"k-{n}", "amount": n, "currency": "EUR"}
                for n in numbers
            ]
            return answers(200, {"entries": entries})

        with FarSide(page(3, 5), page(8), page()) as far_side, asking(far_side.url) as gateway:
            entries = whole(gateway)
            paths = [path for _, path, _, _ in far_side.requests]
        assert [(e.cursor, e.key, e.customer) for e in entries] == [
            ("3", "k-3", None), ("5", "k-5", None), ("8", "k-8", None),
        ]  # fmt: skip
        assert [path.partition("&")[0] for path in paths] == [
            "/book?after=0", "/book?after=5", "/book?after=8",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "step",
        [
            pytest.param(hangs, id="hangs"),
            pytest.param(drops, id="dropped"),
            pytest.param(answers(500, {"entries": []}), id="500"),
            pytest.param(answers(503, b"busy"), id="503"),
            pytest.param(answers(401, {"entries": []}), id="401"),
            pytest.param(answers(404, {"code": "not_found"}), id="404"),
            pytest.param(answers(302, {"entries": []}), id="a redirect"),
            pytest.param(answers(200, b"<html>"), id="not JSON"),
            pytest.param(answers(200, []), id="not an object"),
            pytest.param(answers(200, {}), id="no entries"),
            pytest.param(answers(200, {"entries": None}), id="null"),
            pytest.param(answers(200, {"entries": [{"number": 1}]}), id="half an entry"),
            pytest.param(answers(200, {"entries": ["entry"]}), id="a text"),
            pytest.param(
                answers(200, {"entries": [
                    {"number": 1, "kind": "charge", "key": "k", "amount": 1, "currency": "euro"}
                ]}),
                id="a currency that is none",
            ),
        ],
    )  # fmt: skip
    def test_unreadable_book_is_an_error_not_an_empty_book(self, step: Any) -> None:
        with (
            FarSide(step) as far_side,
            asking(far_side.url, seconds=0.05) as gateway,
            pytest.raises(BookUnavailable) as caught,
        ):
            gateway.book(None)
        assert str(caught.value)

    def test_book_of_an_unreachable_gateway_is_unavailable(self) -> None:
        with (
            asking(f"http://127.0.0.1:{free_port()}", seconds=0.1) as gateway,
            pytest.raises(BookUnavailable),
        ):
            gateway.book(None)
