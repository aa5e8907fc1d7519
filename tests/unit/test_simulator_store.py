from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.store import Refused, Request, Store


def charge(key: str = "ch", amount: int = 1000, currency: str = "EUR") -> dict[str, Any]:
    return {"key": key, "amount": amount, "currency": currency, "customer": "c", "token": "t"}


def refund(key: str, amount: int, charge: str = "ch", currency: str = "EUR") -> dict[str, Any]:
    return {"key": key, "charge_key": charge, "amount": amount, "currency": currency}


def operation(generation: int, paid_until: str | None = "2026-03-02") -> dict[str, Any]:
    return {"generation": generation, "paid_until": paid_until}


def request(body: dict[str, Any], key: str = "k", **changes: str) -> Request:
    facts = {"target": "gateway", "operation": "charge", "subject": ""} | changes
    return Request(key=key, body=body, **facts)


@pytest.fixture
def store() -> Store:
    return Store()


class TestAnswers:
    def test_unknown_key_has_no_answer(self, store: Store) -> None:
        assert store.answer(request({"a": 1})) is None
        assert store.find("charge", "k") is None

    def test_answer_of_a_known_key_is_repeated(self, store: Store) -> None:
        store.remember(request({"a": 1, "b": 2}), 201, {"state": "succeeded"})
        assert store.answer(request({"b": 2, "a": 1})) == (201, {"state": "succeeded"})
        assert store.find("charge", "k") == {"state": "succeeded"}

    def test_first_answer_of_a_key_stays(self, store: Store) -> None:
        store.remember(request({"a": 1}), 201, {"state": "succeeded"})
        store.remember(request({"a": 1}), 402, {"state": "declined"})
        assert store.answer(request({"a": 1})) == (201, {"state": "succeeded"})

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(request({"a": 2}), id="another body"),
            pytest.param(request({"a": 1}, operation="refund"), id="another operation"),
            pytest.param(request({"a": 1}, subject="web/s"), id="another service"),
        ],
    )
    def test_another_request_under_a_known_key_is_refused(
        self, store: Store, other: Request
    ) -> None:
        store.remember(request({"a": 1}), 201, {})
        with pytest.raises(Refused) as refused:
            store.answer(other)
        assert (refused.value.status, refused.value.code) == (422, "key_reused")

    def test_gateway_and_infrastructure_have_keys_of_their_own(self, store: Store) -> None:
        store.remember(request({"a": 1}), 201, {})
        assert store.answer(request({"a": 1}, target="infrastructure")) is None

    def test_a_refund_is_not_a_charge(self, store: Store) -> None:
        store.remember(request({}, "ch"), 201, {"state": "succeeded"})
        store.remember(request({}, "re", operation="refund"), 402, {"state": "declined"})
        assert store.find("refund", "ch") is None
        assert store.find("charge", "re") is None
        assert store.find("refund", "re") == {"state": "declined"}


class TestBook:
    def test_book_records_charges_and_refunds(self, store: Store) -> None:
        store.take(charge(amount=1000))
        assert store.give_back(refund("re", 400)) is None
        entries = store.book(0, 10)
        assert [(e["number"], e["kind"], e["key"], e["charge_key"]) for e in entries] == [
            (1, "charge", "ch", "ch"),
            (2, "refund", "re", "ch"),
        ]
        assert [(e["amount"], e["currency"]) for e in entries] == [(1000, "EUR"), (400, "EUR")]

    def test_book_is_read_page_by_page(self, store: Store) -> None:
        for number in range(5):
            store.take(charge(f"ch-{number}"))
        pages = [store.book(after, 2) for after in (0, 2, 4, 5)]
        assert [[e["number"] for e in page] for page in pages] == [[1, 2], [3, 4], [5], []]

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (refund("re", 1001), "exceeds_charge"),
            (refund("re", 1, charge="none"), "no_such_charge"),
            (refund("re", 1, currency="USD"), "no_such_charge"),
        ],
    )
    def test_refund_without_a_charge_is_declined(
        self, store: Store, body: dict[str, Any], why: str
    ) -> None:
        store.take(charge(amount=1000))
        assert store.give_back(body) == why
        assert len(store.book(0, 10)) == 1

    @given(st.integers(1, 1000), st.lists(st.integers(1, 1000), max_size=8))
    def test_refunds_never_exceed_the_charge(self, taken: int, wanted: list[int]) -> None:
        store = Store()
        store.take(charge(amount=taken))
        left = taken
        for number, amount in enumerate(wanted):
            given = store.give_back(refund(f"re-{number}", amount)) is None
            assert given is (amount <= left)
            left -= amount if given else 0
        book = store.book(0, 100)
        assert sum(e["amount"] for e in book if e["kind"] == "refund") == taken - left
        store.close()


class TestResources:
    def test_store_begins_without_resources(self, store: Store) -> None:
        assert store.resource("s") is None
        assert store.resources(0, 10) == []

    def test_a_service_has_at_most_one_live_resource(self, store: Store) -> None:
        for generation in range(1, 4):
            store.operate("web", "s", "create", operation(generation))
        assert len(store.resources(0, 10)) == 1

    def test_terminated_resource_is_not_live_and_a_new_one_has_another_id(
        self, store: Store
    ) -> None:
        first = store.operate("web", "s", "create", operation(1))
        gone = store.operate("web", "s", "terminate", operation(2))
        assert (gone["state"], gone["generation"]) == ("absent", 2)
        assert store.resource("s") is None
        assert store.resources(0, 10) == []
        second = store.operate("web", "s", "create", operation(3))
        assert second["resource_id"] != first["resource_id"]

    def test_resources_are_listed_by_driver_and_page(self, store: Store) -> None:
        store.operate("web", "a", "create", operation(1))
        store.operate("cloud", "b", "create", operation(1))
        listed = store.resources(0, 10)
        assert [(r["driver"], r["service_id"]) for r in listed] == [("web", "a"), ("cloud", "b")]
        assert [r["service_id"] for r in store.resources(listed[0]["number"], 10)] == ["b"]
        assert len(store.resources(0, 1)) == 1

    def test_operation_of_an_older_generation_is_refused_and_changes_nothing(
        self, store: Store
    ) -> None:
        store.operate("web", "s", "create", operation(2))
        before = store.resource("s")
        with pytest.raises(Refused) as refused:
            store.operate("web", "s", "suspend", operation(1, "2030-01-01"))
        assert (refused.value.status, refused.value.code) == (409, "stale_generation")
        assert store.resource("s") == before


class TestTakenOver:
    """Resources that existed under their own names before they were imported."""

    def taken_over(self, generation: int = 1, name: str = "old-7") -> dict[str, Any]:
        return operation(generation) | {"resource_id": name}

    @pytest.mark.parametrize(
        ("kind", "state"), [("suspend", "suspended"), ("resume", "active"), ("extend", "active")]
    )
    def test_imported_resource_is_adopted_by_its_first_operation(
        self, store: Store, kind: str, state: str
    ) -> None:
        adopted = store.operate("web", "s", kind, self.taken_over())
        assert adopted == {
            "resource_id": "old-7",
            "state": state,
            "paid_until": "2026-03-02",
            "generation": 1,
        }
        assert store.resource("s") == adopted
        assert [r["resource_id"] for r in store.resources(0, 10)] == ["old-7"]

    def test_terminating_an_imported_resource_adopts_and_removes_it(self, store: Store) -> None:
        gone = store.operate("web", "s", "terminate", self.taken_over())
        assert (gone["state"], gone["resource_id"]) == ("absent", None)
        assert store.resources(0, 10) == []

    def test_create_makes_a_new_resource_whatever_name_is_given(self, store: Store) -> None:
        created = store.operate("web", "s", "create", self.taken_over())
        assert created["resource_id"] != "old-7"

    def test_a_resource_is_adopted_by_one_service_only(self, store: Store) -> None:
        store.operate("web", "s", "extend", self.taken_over())
        with pytest.raises(Refused) as refused:
            store.operate("web", "other", "extend", self.taken_over())
        assert (refused.value.status, refused.value.code) == (409, "no_such_resource")
        assert [r["service_id"] for r in store.resources(0, 10)] == ["s"]

    def test_terminated_resource_is_not_adopted_again(self, store: Store) -> None:
        store.operate("web", "s", "terminate", self.taken_over())
        for service in ("s", "other"):
            with pytest.raises(Refused, match="no_such_resource"):
                store.operate("web", service, "resume", self.taken_over(2))
        assert store.resources(0, 10) == []

    def test_name_of_a_resource_belongs_to_its_driver(self, store: Store) -> None:
        store.operate("web", "a", "extend", self.taken_over())
        store.operate("cloud", "b", "extend", self.taken_over())
        assert len(store.resources(0, 10)) == 2

    def test_service_with_a_resource_does_not_adopt_another(self, store: Store) -> None:
        created = store.operate("web", "s", "create", operation(1))
        extended = store.operate("web", "s", "extend", self.taken_over(2))
        assert extended["resource_id"] == created["resource_id"]
        assert len(store.resources(0, 10)) == 1

    def test_resource_that_was_created_here_cannot_be_adopted(self, store: Store) -> None:
        created = store.operate("web", "s", "create", operation(1))
        with pytest.raises(Refused, match="no_such_resource"):
            store.operate("web", "other", "suspend", self.taken_over(1, created["resource_id"]))
        assert store.resource("other") is None

    @pytest.mark.parametrize("name", [None, ""])
    def test_operation_without_a_name_adopts_nothing(self, store: Store, name: Any) -> None:
        with pytest.raises(Refused, match="no_such_resource"):
            store.operate("web", "s", "suspend", operation(1) | {"resource_id": name})

    def test_operation_of_an_older_generation_adopts_nothing(self, store: Store) -> None:
        store.operate("web", "s", "suspend", self.taken_over(3))
        with pytest.raises(Refused, match="stale_generation"):
            store.operate("web", "s", "resume", self.taken_over(2))


def test_store_in_a_file_survives_its_process(tmp_path: Path) -> None:
    # Given a store with a charge and a resource
    path = str(tmp_path / "far-side.sqlite")
    store = Store(path)
    store.take(charge())
    store.remember(request(charge(), "ch"), 201, {"state": "succeeded"})
    store.operate("web", "s", "create", operation(1))
    store.close()
    # When it is opened again, it knows both.
    again = Store(path)
    assert again.find("charge", "ch") == {"state": "succeeded"}
    assert len(again.book(0, 10)) == 1
    assert again.resource("s") is not None
    again.close()
