"""Whose a customer is, what an order leaves alone, and the command that changes what is known."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from producers.intake import Answer, Intake
from producers.intake.realms import Realms
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from tests.conftest import Database
from tests.integration.test_dearer import charged
from tests.integration.test_reminders import letters
from tests.support import given

Place = Callable[..., Answer]
ADDRESS = {"lines": ["1 rue de la Paix"], "postal_code": "75002", "city": "Paris"}


@pytest.fixture
def place(database: Database) -> Place:
    """Sends a document as an upstream; shop-fr and shop-ie share a realm."""
    realms = Realms({"shop-fr": "shops", "shop-ie": "shops"})
    intake = Intake(database.engine("api"), CatalogueCache(), SystemClock(), realms)

    def send(document: Any, upstream: str = "shop", door: str = "amqp") -> Answer:
        (answer,) = intake.place(upstream, door, [given.body(document)])
        return answer

    return send


def known(database: Database) -> dict[str, Any]:
    (row,) = database.all("SELECT * FROM customers")
    return dict(row._mapping)


def codes(answer: Answer) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in answer.problems]


def changes(**fields: Any) -> Any:
    return {"command": "customer", "customer": "alice", **fields}


def order(key: str, **customer: Any) -> Any:
    document = given.order(key)
    document["customer"] |= customer
    return document


class TestOrders:
    def test_the_first_order_says_who_a_customer_is(self, place: Place, database: Database) -> None:
        about = {"name": "Alice", "company": "Alice SARL", "address": ADDRESS}
        assert place(order("k-1", vat_number="fr 40 303265045", **about)).verdict == "accepted"

        alice = known(database)
        assert {name: alice[name] for name in about} == about
        assert (alice["vat_number"], alice["realm"]) == ("FR40303265045", "shop")
        assert database.value("SELECT billed_to FROM orders") == about

    def test_a_later_order_is_billed_to_whom_it_says_and_changes_nothing_else(
        self, place: Place, database: Database
    ) -> None:
        place(order("k-1", vat_number="FR40303265045"))
        before = known(database)

        later = order("k-2", country="DE", vat_number="DE136695976", email="eve@example.com")
        later["customer"] |= {"language": "de", "name": "Eve"}
        assert place(later).verdict == "accepted"
        assert place(order("k-3")).verdict == "accepted"

        assert known(database) == before
        billed = "SELECT country, vat_number, billed_to FROM orders ORDER BY key"
        assert [tuple(row) for row in database.all(billed)] == [
            ("FR", "FR40303265045", None),
            ("DE", "DE136695976", {"name": "Eve"}),
            ("FR", None, None),
        ]

    def test_an_order_that_is_refused_creates_no_customer(
        self, place: Place, database: Database
    ) -> None:
        assert place(order("k-1", country="US")).verdict == "refused"
        assert database.value("SELECT count(*) FROM customers") == 0

    def test_of_orders_taken_together_the_first_says_who_the_customer_is(
        self, database: Database
    ) -> None:
        database.place(order("k-1"), order("k-2", email="eve@example.com"))
        assert known(database)["email"] == "alice@example.com"

    def test_an_order_where_the_customer_could_not_be_renewed_is_refused(
        self, place: Place, database: Database
    ) -> None:
        place(order("k-1"))
        database.run("UPDATE customers SET country = 'US'")

        assert codes(place(order("k-2"))) == [("tax_not_supported", "customer.subsidiary")]


class TestRealms:
    def test_another_upstream_cannot_order_for_a_customer(
        self, place: Place, database: Database
    ) -> None:
        place(order("k-1"))
        before = known(database)
        on_saved = order("k-2")
        del on_saved["payment_method"]

        for document in (order("k-1", email="eve@example.com"), on_saved):
            answer = place(document, "stranger")
            assert codes(answer) == [("customer_not_yours", "customer.id")]
        assert known(database) == before
        assert database.value("SELECT count(*) FROM payment_methods") == 1

    @pytest.mark.parametrize(
        "command",
        [
            changes(email="eve@example.com"),
            {"command": "payment_method", "customer": "alice", "payment_method": "tok_eve"},
            {"command": "accept", "customer": "alice",
             "contracts": [{"contract": "terms", "version": 2}]},
            {"command": "stop", "customer": "alice",
             "services": ["6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"]},
        ],
    )  # fmt: skip
    def test_another_upstream_cannot_command_for_a_customer(
        self, place: Place, database: Database, command: Any
    ) -> None:
        place(order("k-1"))
        before = known(database)

        assert codes(place(command, "stranger")) == [("customer_not_yours", "customer")]
        assert known(database) == before

    def test_upstreams_of_one_realm_share_their_customers(
        self, place: Place, database: Database
    ) -> None:
        place(order("k-1"), "shop-fr")
        assert known(database)["realm"] == "shops"
        assert place(order("k-1"), "shop-ie").verdict == "accepted"
        assert place(changes(name="Alice"), "shop-ie").verdict == "accepted"

    def test_an_operator_commands_for_anybody_and_an_upstream_of_that_name_does_not(
        self, place: Place
    ) -> None:
        place(order("k-1"))
        assert place(changes(name="Alice"), "cli", "cli").verdict == "accepted"
        assert codes(place(changes(name="Eve"), "cli")) == [("customer_not_yours", "customer")]

    def test_customers_from_before_there_were_realms_are_everybodys(
        self, place: Place, database: Database
    ) -> None:
        place(order("k-1"))
        database.run("UPDATE customers SET realm = NULL")
        assert place(order("k-1"), "other").verdict == "accepted"
        assert known(database)["realm"] is None

    def test_of_two_upstreams_that_create_a_customer_at_once_one_is_refused(
        self, database: Database
    ) -> None:
        gate = threading.Barrier(2)
        answers: list[Answer] = []

        def send(upstream: str) -> None:
            intake = Intake(database.engine("api"), CatalogueCache(), SystemClock())
            gate.wait()
            for number in range(20):
                document = given.order(f"k-{number}", customer=f"c-{number}")
                answers.extend(intake.place(upstream, "amqp", [given.body(document)]))

        threads = [threading.Thread(target=send, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        verdicts = sorted(answer.verdict for answer in answers)
        assert verdicts == ["accepted"] * 20 + ["refused"] * 20
        mixed = """SELECT count(*) FROM orders AS o JOIN customers AS c ON c.id = o.customer_id
                   WHERE c.realm <> o.upstream"""
        assert database.value(mixed) == 0


class TestCommand:
    def test_only_what_is_named_changes(self, place: Place, database: Database) -> None:
        place(order("k-1", vat_number="FR40303265045", name="Alice", address=ADDRESS))
        before = known(database)

        assert place(changes(email="new@example.com", vat_number=None)).verdict == "accepted"

        after = known(database)
        assert (after.pop("email"), after.pop("vat_number")) == ("new@example.com", None)
        del after["updated_at"]
        assert after.items() < before.items()
        events = database.all("SELECT detail FROM events WHERE name = 'customer.changed'")
        assert [row.detail for row in events] == [{"fields": ["email", "vat_number"]}]

    def test_repeating_it_changes_nothing(self, place: Place, database: Database) -> None:
        place(order("k-1", address=ADDRESS))
        assert not place(changes(name="Alice")).repeated
        for command in (changes(name="Alice"), changes(address=ADDRESS), changes(company=None)):
            answer = place(command)
            assert (answer.verdict, answer.repeated) == ("accepted", True)
        assert database.value("SELECT count(*) FROM events WHERE name = 'customer.changed'") == 1

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"email": None}, ("email_invalid", "email")),
            ({"email": "a..b@example.com"}, ("email_invalid", "email")),
            ({"country": None}, ("country_invalid", "country")),
            ({"language": "zz"}, ("language_invalid", "language")),
            ({"subsidiary": "IE"}, ("field_unknown", "subsidiary")),
            ({"address": {"city": "Paris"}}, ("field_missing", "address.lines")),
        ],
    )
    def test_what_cannot_be_is_rejected(
        self, place: Place, fields: Any, problem: tuple[str, str]
    ) -> None:
        answer = place(changes(**fields))
        assert (answer.verdict, codes(answer)) == ("rejected", [problem])

    def test_a_customer_who_is_not_known_is_refused(self, place: Place) -> None:
        assert codes(place(changes(name="Alice"))) == [("customer_unknown", "customer")]

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"country": "US"}, ("tax_not_supported", "country")),
            ({"vat_number": "FR40303265046"}, ("vat_number_invalid", "vat_number")),
            ({"country": "DE"}, ("vat_number_invalid", "vat_number")),
        ],
    )
    def test_a_change_with_which_a_service_could_not_be_renewed_is_refused(
        self, life: Any, fields: Any, problem: tuple[str, str]
    ) -> None:
        world = life()
        world.send(order("k-1", vat_number="FR40303265045"))

        answer = world.command("customer", **fields)

        assert (answer.verdict, codes(answer)) == ("refused", [problem])
        assert known(world.database)["country"] == "FR"

    def test_who_moves_names_country_and_number_at_once(self, life: Any) -> None:
        world = life()
        world.send(order("k-1", vat_number="FR40303265045"))
        moved = world.command("customer", country="DE", vat_number="136695976")
        assert moved.verdict == "accepted"
        assert known(world.database)["vat_number"] == "DE136695976"

    def test_an_order_that_is_never_paid_does_not_untax_the_next_renewal(self, life: Any) -> None:
        world = life()
        first = world.order()
        world.send(order("k-2", country="DE", vat_number="DE136695976", email="eve@example.com"))

        world.pass_until(first, 0.1)

        assert charged(world) == [9089]  # 20 % of 2 x 37.87
        assert letters(world, "eve") == []
        assert letters(world) != []
