"""What every payment gateway must do, over its port: a suite for authors of gateways.

::

    from workers.conformance import GatewayConformance

    class TestMyGateway(GatewayConformance):
        @pytest.fixture
        def gateway(self) -> Gateway:
            return MyGateway("mine", MyGateway.Settings(url=...))

Every test uses keys of its own; tests of the book need a gateway whose book only this test writes
to (``new_gateway``, by default ``gateway``).
"""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.books import BookEntry, BookUnavailable
from schemas.values import Money
from workers.billing.gateways.port import Charge, Gateway, GatewayState, Refund
from workers.conformance.waiting import Waiting
from workers.outside.registry import lacks

SUCCEEDED, DECLINED = GatewayState.SUCCEEDED, GatewayState.DECLINED
NOT_FOUND, UNKNOWN = GatewayState.NOT_FOUND, GatewayState.UNKNOWN


def charge_of(amount: int = 4544, **changes: Any) -> Charge:
    """A charge with a key of its own, in cents."""
    facts = {"key": str(uuid.uuid4()), "token": "tok_1", "customer": "c-1"} | changes
    return Charge(amount=Money(amount, "EUR"), **facts)


def refund_of(charge: Charge, amount: int) -> Refund:
    return Refund(str(uuid.uuid4()), charge.key, Money(amount, "EUR"))


def whole(gateway: Waiting) -> list[BookEntry]:
    """The book, page by page."""
    entries: list[BookEntry] = []
    while page := gateway.book(entries[-1].cursor if entries else None):
        entries += page
    return entries


class GatewayConformance:
    """Inherit it, and give it a fixture ``gateway``."""

    @pytest.fixture
    def gateway(self) -> Gateway:
        raise NotImplementedError("a conformance test needs a fixture `gateway`")

    @pytest.fixture
    def new_gateway(self, gateway: Gateway) -> Gateway:
        """One whose book is empty."""
        return gateway

    @pytest.fixture
    def unreachable(self) -> Gateway | None:
        """A gateway with the address of nothing; None skips its test."""
        return None

    @pytest.fixture
    def deaf(self) -> Gateway | None:
        """A gateway to the same far side as ``gateway``, which does what it is told; but none of
        its answers arrives. Its deadline should be short. None skips its test."""
        return None

    @pytest.fixture
    def used(self, gateway: Gateway) -> Iterator[Waiting]:
        with Waiting(gateway) as waiting:
            yield waiting

    @pytest.fixture
    def unused(self, new_gateway: Gateway) -> Iterator[Waiting]:
        with Waiting(new_gateway) as waiting:
            yield waiting

    def test_it_has_every_method_of_a_gateway(self, gateway: Gateway) -> None:
        assert lacks("gateways", gateway) == []

    def test_what_cannot_be_reached_has_certainly_not_been_done(
        self, unreachable: Gateway | None
    ) -> None:
        if unreachable is None:
            pytest.skip("no fixture `unreachable`")
        charge = charge_of()
        with Waiting(unreachable) as waiting:
            for operation in (charge, refund_of(charge, 1)):
                for answer in (waiting.perform(operation), waiting.ask(operation)):
                    assert answer.state is GatewayState.UNAVAILABLE
                    assert answer.reason
            with pytest.raises(BookUnavailable):
                waiting.book(None)

    def test_charge_whose_answer_is_lost_is_unknown_and_found_by_its_key(
        self, deaf: Gateway | None, used: Waiting
    ) -> None:
        if deaf is None:
            pytest.skip("no fixture `deaf`")
        charge = charge_of(1000)
        with Waiting(deaf) as waiting:
            assert waiting.perform(charge).state is UNKNOWN
            assert waiting.ask(charge).state is UNKNOWN
            with pytest.raises(BookUnavailable):
                waiting.book(None)
        # Then it was taken once, and is not taken again.
        assert used.ask(charge).state is SUCCEEDED
        assert used.perform(charge).state is SUCCEEDED
        assert used.perform(refund_of(charge, 1001)).state is DECLINED
        assert used.perform(refund_of(charge, 1000)).state is SUCCEEDED

    def test_a_charge_succeeds_and_has_a_reference(self, used: Waiting) -> None:
        answer = used.perform(charge_of())
        assert answer.state is SUCCEEDED
        assert answer.reference

    def test_repeated_charge_is_the_same_charge(self, used: Waiting) -> None:
        # Given a charge that succeeded
        charge = charge_of(4544)
        first = used.perform(charge)
        # When it is sent again, the answer is the same
        assert used.perform(charge) == first
        # And the money was taken once: no more than that can be given back.
        assert used.perform(refund_of(charge, 4545)).state is DECLINED
        assert used.perform(refund_of(charge, 4544)).state is SUCCEEDED

    def test_another_amount_under_a_known_key_is_never_taken(self, used: Waiting) -> None:
        charge = charge_of(1000)
        used.perform(charge)
        assert used.perform(charge_of(9000, key=charge.key)).state is UNKNOWN
        assert used.perform(refund_of(charge, 1001)).state is DECLINED

    @pytest.mark.parametrize("change", [{"token": "tok_2"}, {"customer": "c-2"}])
    def test_another_body_under_a_known_key_is_not_confirmed(
        self, used: Waiting, change: dict[str, Any]
    ) -> None:
        charge = charge_of()
        used.perform(charge)
        assert used.perform(charge_of(key=charge.key, **change)).state is UNKNOWN
        assert used.ask(charge).state is SUCCEEDED

    def test_a_key_belongs_to_a_charge_or_to_a_refund(self, used: Waiting) -> None:
        charge = charge_of(1000)
        used.perform(charge)
        refund = refund_of(charge, 1)
        used.perform(refund)
        # When each key is used for the other, nothing is done
        assert used.perform(Refund(charge.key, charge.key, Money(1, "EUR"))).state is UNKNOWN
        assert used.perform(charge_of(key=refund.key)).state is UNKNOWN
        # Nor is a charge found among refunds.
        assert used.ask(Refund(charge.key, charge.key, charge.amount)).state is NOT_FOUND
        assert used.ask(charge_of(refund.amount.amount, key=refund.key)).state is NOT_FOUND
        assert used.perform(refund_of(charge, 999)).state is SUCCEEDED

    def test_another_refund_under_a_known_key_is_not_confirmed(self, used: Waiting) -> None:
        charge = charge_of(1000)
        used.perform(charge)
        refund = refund_of(charge, 600)
        used.perform(refund)
        other = Refund(refund.key, charge.key, Money(400, "EUR"))
        assert used.perform(other).state is UNKNOWN
        assert used.perform(refund_of(charge, 400)).state is SUCCEEDED

    def test_a_refund_that_was_declined_stays_declined(self, used: Waiting) -> None:
        # Given a refund of money that was not taken yet
        charge = charge_of()
        refund = refund_of(charge, 1)
        assert used.perform(refund).state is DECLINED
        used.perform(charge)
        # Then it is declined for good under this key; another key is another attempt.
        assert used.perform(refund).state is DECLINED
        assert used.ask(refund).state is DECLINED
        assert used.perform(refund_of(charge, 1)).state is SUCCEEDED

    def test_money_is_given_back_in_the_currency_it_was_taken_in(self, used: Waiting) -> None:
        charge = charge_of()
        used.perform(charge)
        dollars = Refund(str(uuid.uuid4()), charge.key, Money(1, "USD"))
        assert used.perform(dollars).state is DECLINED

    def test_a_charge_is_found_by_its_key(self, used: Waiting) -> None:
        charge = charge_of()
        assert used.ask(charge).state is NOT_FOUND
        used.perform(charge)
        assert used.ask(charge).state is SUCCEEDED

    def test_a_charge_of_another_amount_is_not_found_to_have_succeeded(self, used: Waiting) -> None:
        charge = charge_of(1000)
        used.perform(charge)
        assert used.ask(charge_of(900, key=charge.key)).state is UNKNOWN

    def test_asking_about_a_charge_takes_no_money(self, used: Waiting) -> None:
        charge = charge_of()
        used.ask(charge)
        used.ask(charge)
        assert used.perform(refund_of(charge, 1)).state is DECLINED

    def test_money_is_given_back_in_parts_up_to_what_was_taken(self, used: Waiting) -> None:
        charge = charge_of(1000)
        used.perform(charge)
        given = [used.perform(refund_of(charge, amount)).state for amount in (600, 400, 1)]
        assert given == [SUCCEEDED, SUCCEEDED, DECLINED]

    def test_repeated_refund_is_the_same_refund(self, used: Waiting) -> None:
        charge = charge_of(1000)
        used.perform(charge)
        refund = refund_of(charge, 600)
        first = used.perform(refund)
        assert first.state is SUCCEEDED
        assert used.perform(refund) == first
        assert used.perform(refund_of(charge, 400)).state is SUCCEEDED

    def test_a_refund_is_found_by_its_key(self, used: Waiting) -> None:
        charge = charge_of()
        used.perform(charge)
        refund = refund_of(charge, 1)
        assert used.ask(refund).state is NOT_FOUND
        used.perform(refund)
        assert used.ask(refund).state is SUCCEEDED

    def test_refund_of_an_unknown_charge_is_declined(self, used: Waiting) -> None:
        answer = used.perform(refund_of(charge_of(), 1))
        assert answer.state is DECLINED
        assert answer.reason

    def test_refund_is_never_larger_than_its_own_charge(self, used: Waiting) -> None:
        one, other = charge_of(100), charge_of(900)
        used.perform(one)
        used.perform(other)
        assert used.perform(refund_of(one, 101)).state is DECLINED
        assert used.perform(refund_of(other, 900)).state is SUCCEEDED

    def test_book_is_empty_before_the_first_charge(self, unused: Waiting) -> None:
        assert whole(unused) == []

    def test_book_lists_charges_and_refunds_in_order(self, unused: Waiting) -> None:
        one, other = charge_of(100, customer="c-1"), charge_of(900, customer="c-2")
        refund = refund_of(one, 30)
        unused.perform(one)
        unused.perform(refund)
        unused.perform(other)

        entries = whole(unused)

        assert [(e.kind, e.key, e.amount) for e in entries] == [
            ("charge", one.key, Money(100, "EUR")),
            ("refund", refund.key, Money(30, "EUR")),
            ("charge", other.key, Money(900, "EUR")),
        ]
        assert [e.customer for e in entries if e.kind == "charge"] == ["c-1", "c-2"]

    def test_a_page_of_the_book_follows_the_one_before(self, unused: Waiting) -> None:
        for _ in range(5):
            unused.perform(charge_of())
        entries = whole(unused)

        assert len({e.cursor for e in entries}) == len(entries)
        for place, entry in enumerate(entries):
            assert unused.book(entry.cursor) == entries[place + 1 :]

    def test_repeated_charge_is_in_the_book_once(self, unused: Waiting) -> None:
        charge = charge_of(100)
        refund = refund_of(charge, 10)
        for _ in range(2):
            unused.perform(charge)
            unused.perform(refund)

        assert [e.key for e in whole(unused)] == [charge.key, refund.key]

    def test_declined_and_queried_charges_are_not_in_the_book(self, unused: Waiting) -> None:
        charge = charge_of(100)
        unused.ask(charge)
        unused.perform(refund_of(charge, 1))  # of what was not taken yet
        unused.perform(charge)
        unused.perform(refund_of(charge, 101))
        unused.perform(charge_of(200, key=charge.key))

        assert [(e.key, e.amount.amount) for e in whole(unused)] == [(charge.key, 100)]

    def test_book_continues_after_the_last_page_read(self, unused: Waiting) -> None:
        unused.perform(charge_of())
        last = whole(unused)[-1].cursor
        assert unused.book(last) == []
        later = charge_of()
        unused.perform(later)
        assert [e.key for e in unused.book(last)] == [later.key]
