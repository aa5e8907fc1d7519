"""What every payment gateway must do: one suite, for the one in memory and the one over HTTP."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from autorenew.local.ports import free_port
from schemas.values import Money
from simulator.server import Running
from tests.support.far_side import FarSide, answers, drops, hangs
from workers.billing.gateways.http import HttpGateway
from workers.billing.gateways.instant import InstantGateway
from workers.billing.gateways.port import (
    BookEntry,
    BookUnavailable,
    Charge,
    Gateway,
    GatewayAnswer,
    GatewayState,
    Refund,
)

SUCCEEDED, DECLINED = GatewayState.SUCCEEDED, GatewayState.DECLINED
NOT_FOUND, UNKNOWN = GatewayState.NOT_FOUND, GatewayState.UNKNOWN


@pytest.fixture(scope="module")
def simulator() -> Iterator[Running]:
    with Running() as running:
        yield running


@pytest.fixture(params=["instant", "http"])
def gateway(request: pytest.FixtureRequest, simulator: Running) -> Gateway:
    if request.param == "instant":
        return InstantGateway()
    return HttpGateway(f"{simulator.url}/gateway", seconds=5)


def charge_of(amount: int = 4544, **changes: Any) -> Charge:
    facts = {"key": str(uuid.uuid4()), "token": "tok_1", "customer": "c-1"} | changes
    return Charge(amount=Money(amount, "EUR"), **facts)


def refund_of(charge: Charge, amount: int) -> Refund:
    return Refund(str(uuid.uuid4()), charge.key, Money(amount, "EUR"))


class TestEveryGateway:
    def test_gateway_says_whether_it_answers_at_once(self, gateway: Gateway) -> None:
        assert gateway.immediate is isinstance(gateway, InstantGateway)

    def test_a_charge_succeeds_and_has_a_reference(self, gateway: Gateway) -> None:
        answer = gateway.charge(charge_of())
        assert answer.state is SUCCEEDED
        assert answer.reference

    def test_repeated_charge_is_the_same_charge(self, gateway: Gateway) -> None:
        # Given a charge that succeeded
        charge = charge_of(4544)
        first = gateway.charge(charge)
        # When it is sent again, the answer is the same
        assert gateway.charge(charge) == first
        # And the money was taken once: no more than that can be given back.
        assert gateway.refund(refund_of(charge, 4545)).state is DECLINED
        assert gateway.refund(refund_of(charge, 4544)).state is SUCCEEDED

    def test_another_amount_under_a_known_key_is_never_taken(self, gateway: Gateway) -> None:
        charge = charge_of(1000)
        gateway.charge(charge)
        assert gateway.charge(charge_of(9000, key=charge.key)).state is UNKNOWN
        assert gateway.refund(refund_of(charge, 1001)).state is DECLINED

    @pytest.mark.parametrize("change", [{"token": "tok_2"}, {"customer": "c-2"}])
    def test_another_body_under_a_known_key_is_not_confirmed(
        self, gateway: Gateway, change: dict[str, Any]
    ) -> None:
        charge = charge_of()
        gateway.charge(charge)
        assert gateway.charge(charge_of(key=charge.key, **change)).state is UNKNOWN
        assert gateway.find_charge(charge.key).state is SUCCEEDED

    def test_a_key_belongs_to_a_charge_or_to_a_refund(self, gateway: Gateway) -> None:
        charge = charge_of(1000)
        gateway.charge(charge)
        refund = refund_of(charge, 1)
        gateway.refund(refund)
        # When each key is used for the other, nothing is done
        assert gateway.refund(Refund(charge.key, charge.key, Money(1, "EUR"))).state is UNKNOWN
        assert gateway.charge(charge_of(key=refund.key)).state is UNKNOWN
        # Nor is a charge found among refunds.
        assert gateway.find_refund(charge.key).state is NOT_FOUND
        assert gateway.find_charge(refund.key).state is NOT_FOUND
        assert gateway.refund(refund_of(charge, 999)).state is SUCCEEDED

    def test_another_refund_under_a_known_key_is_not_confirmed(self, gateway: Gateway) -> None:
        charge = charge_of(1000)
        gateway.charge(charge)
        refund = refund_of(charge, 600)
        gateway.refund(refund)
        other = Refund(refund.key, charge.key, Money(400, "EUR"))
        assert gateway.refund(other).state is UNKNOWN
        assert gateway.refund(refund_of(charge, 400)).state is SUCCEEDED

    def test_a_refund_that_was_declined_stays_declined(self, gateway: Gateway) -> None:
        # Given a refund of money that was not taken yet
        charge = charge_of()
        refund = refund_of(charge, 1)
        assert gateway.refund(refund).state is DECLINED
        gateway.charge(charge)
        # Then it is declined for good under this key; another key is another attempt.
        assert gateway.refund(refund).state is DECLINED
        assert gateway.find_refund(refund.key).state is DECLINED
        assert gateway.refund(refund_of(charge, 1)).state is SUCCEEDED

    def test_money_is_given_back_in_the_currency_it_was_taken_in(self, gateway: Gateway) -> None:
        charge = charge_of()
        gateway.charge(charge)
        dollars = Refund(str(uuid.uuid4()), charge.key, Money(1, "USD"))
        assert gateway.refund(dollars).state is DECLINED

    def test_a_charge_is_found_by_its_key(self, gateway: Gateway) -> None:
        charge = charge_of()
        assert gateway.find_charge(charge.key).state is NOT_FOUND
        gateway.charge(charge)
        assert gateway.find_charge(charge.key).state is SUCCEEDED

    def test_asking_about_a_charge_takes_no_money(self, gateway: Gateway) -> None:
        charge = charge_of()
        gateway.find_charge(charge.key)
        gateway.find_charge(charge.key)
        assert gateway.refund(refund_of(charge, 1)).state is DECLINED

    def test_money_is_given_back_in_parts_up_to_what_was_taken(self, gateway: Gateway) -> None:
        charge = charge_of(1000)
        gateway.charge(charge)
        given = [gateway.refund(refund_of(charge, amount)).state for amount in (600, 400, 1)]
        assert given == [SUCCEEDED, SUCCEEDED, DECLINED]

    def test_repeated_refund_is_the_same_refund(self, gateway: Gateway) -> None:
        charge = charge_of(1000)
        gateway.charge(charge)
        refund = refund_of(charge, 600)
        first = gateway.refund(refund)
        assert first.state is SUCCEEDED
        assert gateway.refund(refund) == first
        assert gateway.refund(refund_of(charge, 400)).state is SUCCEEDED

    def test_a_refund_is_found_by_its_key(self, gateway: Gateway) -> None:
        charge = charge_of()
        gateway.charge(charge)
        refund = refund_of(charge, 1)
        assert gateway.find_refund(refund.key).state is NOT_FOUND
        gateway.refund(refund)
        assert gateway.find_refund(refund.key).state is SUCCEEDED

    def test_refund_of_an_unknown_charge_is_declined(self, gateway: Gateway) -> None:
        answer = gateway.refund(refund_of(charge_of(), 1))
        assert answer.state is DECLINED
        assert answer.reason

    def test_refund_is_never_larger_than_its_own_charge(self, gateway: Gateway) -> None:
        one, other = charge_of(100), charge_of(900)
        gateway.charge(one)
        gateway.charge(other)
        assert gateway.refund(refund_of(one, 101)).state is DECLINED
        assert gateway.refund(refund_of(other, 900)).state is SUCCEEDED


@pytest.fixture(params=["instant", "http"])
def new_gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """One that nobody has used."""
    if request.param == "instant":
        yield InstantGateway()
        return
    with Running() as simulator:
        yield HttpGateway(f"{simulator.url}/gateway", seconds=5)
    simulator.simulator.store.close()


def whole(gateway: Gateway) -> list[BookEntry]:
    """The book, page by page."""
    entries: list[BookEntry] = []
    while page := gateway.book(entries[-1].number if entries else 0):
        entries += page
    return entries


class TestEveryBook:
    def test_book_is_empty_before_the_first_charge(self, new_gateway: Gateway) -> None:
        assert new_gateway.book(0) == []
        assert new_gateway.book(1000) == []

    def test_book_lists_charges_and_refunds_in_order(self, new_gateway: Gateway) -> None:
        one, other = charge_of(100, customer="c-1"), charge_of(900, customer="c-2")
        refund = refund_of(one, 30)
        new_gateway.charge(one)
        new_gateway.refund(refund)
        new_gateway.charge(other)

        entries = whole(new_gateway)

        assert [(e.kind, e.key, e.amount) for e in entries] == [
            ("charge", one.key, Money(100, "EUR")),
            ("refund", refund.key, Money(30, "EUR")),
            ("charge", other.key, Money(900, "EUR")),
        ]
        assert [e.customer for e in entries if e.kind == "charge"] == ["c-1", "c-2"]

    def test_book_is_numbered_and_read_page_by_page(self, new_gateway: Gateway) -> None:
        for _ in range(5):
            new_gateway.charge(charge_of())
        entries = whole(new_gateway)

        assert [e.number for e in entries] == sorted({e.number for e in entries})
        for place, entry in enumerate(entries):
            assert new_gateway.book(entry.number) == entries[place + 1 :]

    def test_repeated_charge_is_in_the_book_once(self, new_gateway: Gateway) -> None:
        charge = charge_of(100)
        refund = refund_of(charge, 10)
        for _ in range(2):
            new_gateway.charge(charge)
            new_gateway.refund(refund)

        assert [e.key for e in whole(new_gateway)] == [charge.key, refund.key]

    def test_declined_and_queried_charges_are_not_in_the_book(self, new_gateway: Gateway) -> None:
        charge = charge_of(100)
        new_gateway.find_charge(charge.key)
        new_gateway.refund(refund_of(charge, 1))  # of what was not taken yet
        new_gateway.charge(charge)
        new_gateway.refund(refund_of(charge, 101))
        new_gateway.charge(charge_of(200, key=charge.key))

        assert [(e.key, e.amount.amount) for e in whole(new_gateway)] == [(charge.key, 100)]

    def test_book_continues_after_the_last_page_read(self, new_gateway: Gateway) -> None:
        new_gateway.charge(charge_of())
        last = whole(new_gateway)[-1].number
        assert new_gateway.book(last) == []
        later = charge_of()
        new_gateway.charge(later)
        assert [e.key for e in new_gateway.book(last)] == [later.key]


def ask(gateway: HttpGateway) -> list[GatewayAnswer]:
    """A call and a question."""
    charge = charge_of()
    return [gateway.refund(refund_of(charge, 1)), gateway.find_charge(charge.key)]


class TestOverHttp:
    def test_gateway_that_hangs_is_unknown_within_the_deadline(self) -> None:
        with FarSide(hangs) as far_side:
            gateway = HttpGateway(far_side.url, seconds=0.3)
            started = time.monotonic()
            answer = gateway.charge(charge_of())
            assert answer.state is UNKNOWN
            assert answer.reason
            assert time.monotonic() - started < 1

    def test_unreachable_gateway_has_certainly_not_charged(self) -> None:
        gateway = HttpGateway(f"http://127.0.0.1:{free_port()}", seconds=0.2)
        assert {answer.state for answer in ask(gateway)} == {GatewayState.UNAVAILABLE}

    @pytest.mark.parametrize(
        "step",
        [
            pytest.param(drops, id="dropped"),
            pytest.param(answers(500, {"state": "succeeded"}), id="500"),
            pytest.param(answers(503, b"busy"), id="503"),
            pytest.param(answers(200, b"<html>"), id="not JSON"),
            pytest.param(answers(200, []), id="not an object"),
            pytest.param(answers(200, {}), id="no state"),
            pytest.param(answers(200, {"state": "paid"}), id="an unknown state"),
            pytest.param(answers(200, {"state": ["succeeded"]}), id="a state that is a list"),
            pytest.param(answers(202, {"state": "succeeded"}), id="202"),
            pytest.param(answers(302, {"state": "succeeded"}), id="a redirect"),
            pytest.param(answers(400, {"state": "declined"}), id="400"),
            pytest.param(answers(401, {}), id="401"),
            pytest.param(answers(404, b"<html>"), id="a page not found"),
            pytest.param(answers(422, {"code": "key_reused"}), id="key reused"),
            pytest.param(answers(429, {}), id="429"),
        ],
    )
    def test_malformed_answer_is_unknown(self, step: Any) -> None:
        with FarSide(step) as far_side:
            gateway = HttpGateway(far_side.url, seconds=0.05)
            assert {answer.state for answer in ask(gateway)} == {UNKNOWN}

    def test_not_found_is_valid_only_as_the_answer_to_a_query(self) -> None:
        with FarSide(answers(404, {"code": "not_found"})) as far_side:
            gateway = HttpGateway(far_side.url, seconds=1)
            assert [answer.state for answer in ask(gateway)] == [UNKNOWN, NOT_FOUND]

    def test_calls_are_counted_by_what_was_answered(self) -> None:
        def counted() -> list[float]:
            labels = [
                {"target": "gateway", "operation": "find_charge", "outcome": outcome}
                for outcome in ("succeeded", "declined", "unknown", "unavailable")
            ]
            name = "autorenew_calls_total"
            return [REGISTRY.get_sample_value(name, each) or 0.0 for each in labels]

        before = counted()
        steps = answers(200, {"state": "succeeded"}), answers(200, {"state": "declined"})
        with FarSide(*steps, answers(400, {})) as far_side:
            for _ in range(3):
                HttpGateway(far_side.url, seconds=1).find_charge("k")
        HttpGateway(f"http://127.0.0.1:{free_port()}", seconds=0.1).find_charge("k")
        assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 1, 1]

    def test_a_decline_is_a_decline_with_its_reason(self) -> None:
        with FarSide(answers(402, {"state": "declined", "reason": "stolen_card"})) as far_side:
            answer = HttpGateway(far_side.url, seconds=1).charge(charge_of())
            assert (answer.state, answer.reason) == (DECLINED, "stolen_card")

    def test_a_charge_says_what_the_gateway_needs_to_know(self) -> None:
        with FarSide(answers(201, {"state": "succeeded"})) as far_side:
            charge = charge_of(4544)
            HttpGateway(far_side.url + "/", seconds=1, token="secret").charge(charge)
            method, path, headers, body = far_side.requests[0]
            assert (method, path) == ("POST", "/charges")
            assert headers["authorization"] == "Bearer secret"
            assert body == {
                "key": charge.key,
                "amount": 4544,
                "currency": "EUR",
                "token": "tok_1",
                "customer": "c-1",
            }

    def test_every_try_of_a_call_carries_the_same_key(self) -> None:
        with FarSide(answers(500, {}), drops, answers(201, {"state": "succeeded"})) as far_side:
            answer = HttpGateway(far_side.url, seconds=5).charge(charge_of())
            assert answer.state is SUCCEEDED
            assert len(far_side.requests) == 3
            assert len({request[3]["key"] for request in far_side.requests}) == 1

    def test_a_book_is_read_page_by_page_until_one_is_empty(self) -> None:
        def page(*numbers: int) -> Any:
            entries = [
                {"number": n, "kind": "charge", "key": f"k-{n}", "amount": n, "currency": "EUR"}
                for n in numbers
            ]
            return answers(200, {"entries": entries})

        with FarSide(page(3, 5), page(8), page()) as far_side:
            entries = whole(HttpGateway(far_side.url, seconds=1))
            paths = [path for _, path, _, _ in far_side.requests]
        assert [(e.number, e.key, e.customer) for e in entries] == [
            (3, "k-3", None), (5, "k-5", None), (8, "k-8", None),
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
        with FarSide(step) as far_side, pytest.raises(BookUnavailable) as caught:
            HttpGateway(far_side.url, seconds=0.05).book(0)
        assert str(caught.value)

    def test_book_of_an_unreachable_gateway_is_unavailable(self) -> None:
        gateway = HttpGateway(f"http://127.0.0.1:{free_port()}", seconds=0.1)
        with pytest.raises(BookUnavailable):
            gateway.book(0)
