"""Orders are taken once per key, and a bad document does not harm its neighbours."""

import threading
from datetime import date
from typing import Any

import pytest

from producers.intake import Intake, Verdict
from schemas.catalogue.store import CatalogueCache
from schemas.clock import SystemClock
from tests.conftest import Database
from tests.support.given import body, line, order


def test_accepted_order_is_stored_with_its_lines_and_its_first_task(database: Database) -> None:
    (answer,) = database.place(order("k-1", line(quantity=3), line("vm")))

    assert answer.verdict is Verdict.ACCEPTED
    assert database.all("SELECT upstream, key, state FROM orders") == [("shop", "k-1", "accepted")]
    lines = database.all("SELECT number, plan, quantity FROM order_lines ORDER BY number")
    assert lines == [(1, "site", 3), (2, "vm", 1)]
    assert database.all("SELECT name, subject FROM tasks") == [("price", answer.order_id)]
    assert database.value("SELECT name FROM events") == "order.accepted"


def test_the_same_document_again_gives_the_same_answer_and_changes_nothing(
    database: Database,
) -> None:
    (first,) = database.place(order())
    (second,) = database.place(order())

    assert (second.verdict, second.order_id) == (first.verdict, first.order_id)
    assert (first.repeated, second.repeated) == (False, True)
    assert database.value("SELECT count(*) FROM orders") == 1
    assert database.value("SELECT wanted FROM tasks") == 1


def test_refused_order_takes_its_key_and_gets_the_same_answer_again(
    database: Database,
) -> None:
    bad = order("k-1", line("no-such-plan"))
    (first,) = database.place(bad)
    (second,) = database.place(bad)

    assert first.verdict is second.verdict is Verdict.REFUSED
    assert [p.code for p in second.problems] == [p.code for p in first.problems] == ["plan_unknown"]
    assert second.repeated
    assert database.all("SELECT state FROM orders") == [("refused",)]
    assert database.value("SELECT count(*) FROM tasks") == 0


@pytest.mark.parametrize("first_is_good", [True, False])
def test_another_document_under_the_same_key_is_rejected(
    database: Database, first_is_good: bool
) -> None:
    first = order("k-1") if first_is_good else order("k-1", line("no-such-plan"))
    database.place(first)

    (answer,) = database.place(order("k-1", line(quantity=2)))

    assert answer.verdict is Verdict.REJECTED
    assert [p.code for p in answer.problems] == ["key_reused"]
    assert database.value("SELECT count(*) FROM orders") == 1


def test_a_key_belongs_to_its_upstream(database: Database) -> None:
    database.place(order("k-1"), upstream="shop")
    (answer,) = database.place(order("k-1", customer="bob"), upstream="partner")

    assert answer.verdict is Verdict.ACCEPTED
    assert database.value("SELECT count(*) FROM orders") == 2


def test_a_batch_may_hold_the_same_key_twice(database: Database) -> None:
    answers = database.place(order("k-1"), order("k-1"), order("k-1", line(quantity=2)))

    assert [a.verdict for a in answers] == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.REJECTED]
    assert [a.repeated for a in answers] == [False, True, False]
    assert database.value("SELECT count(*) FROM orders") == 1


def test_bad_documents_do_not_harm_their_neighbours(database: Database) -> None:
    intake = Intake(database.engine("api"), CatalogueCache(), SystemClock())
    bodies = [
        body(order("good-1")),
        b"\xff\xfe not json",
        b"[1, 2, 3]",
        body(order("", line())),
        body(order("good-2")),
        b'{"key": "nul-\\u0000"}',
        body(order("surrogate")).replace(b"alice", b"\\ud800"),
        body(order("good-3", customer="zoë")),
        b"x" * 300_000,
        b"{" * 5000,
    ]

    answers = intake.place("shop", "amqp", bodies)

    accepted = [a.key for a in answers if a.verdict is Verdict.ACCEPTED]
    assert accepted == ["good-1", "good-2", "good-3"]
    assert all(a.problems for a in answers if a.verdict is not Verdict.ACCEPTED)
    kept = database.value("SELECT count(*) FROM rejected_documents")
    assert kept == len(bodies) - len(accepted)


def test_rejected_document_is_kept_without_its_secrets(database: Database) -> None:
    bad = order("k-1", line("no-such-plan"), payment_method="tok-secret-4242")
    bad["customer"]["email"] = "alice.secret@example.com"
    bad["customer"]["vat_number"] = "FR40303265045"

    database.place(bad)

    kept = database.value("SELECT body FROM rejected_documents")
    for secret in ("tok-secret-4242", "alice.secret", "FR40303265045"):
        assert secret not in kept
    assert "no-such-plan" in kept


def test_rejected_document_that_comes_again_is_kept_once_and_counted(database: Database) -> None:
    intake = Intake(database.engine("api"), CatalogueCache(), SystemClock())

    for _ in range(3):
        intake.place("shop", "amqp", [b"nonsense"])

    assert database.all("SELECT code, times FROM rejected_documents") == [("not_json", 3)]


def test_the_same_order_sent_through_many_doors_at_once_is_taken_once(database: Database) -> None:
    intake = Intake(database.engine("api"), CatalogueCache(), SystemClock())
    documents = [body(order(f"k-{n}", customer=f"c-{n % 3}")) for n in range(20)]
    answers: list[Any] = []

    def send(bodies: list[bytes]) -> None:
        answers.extend(intake.place("shop", "python", bodies))

    threads = [
        threading.Thread(target=send, args=(bodies,))
        for bodies in (documents, documents[::-1], documents[10:] + documents[:10])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 60
    assert {answer.verdict for answer in answers} == {Verdict.ACCEPTED}
    assert sum(not answer.repeated for answer in answers) == 20
    assert database.value("SELECT count(*) FROM orders") == 20
    assert database.value("SELECT count(*) FROM tasks") == 20


class TestPaymentMethods:
    """An order without a payment method is paid with the one that the first order saved."""

    def saved(self, database: Database) -> list[Any]:
        return database.all(
            "SELECT c.id, m.token FROM customers AS c"
            " LEFT JOIN payment_methods AS m ON m.id = c.payment_method_id ORDER BY c.id"
        )

    def paid_with(self, database: Database) -> list[Any]:
        return database.all(
            "SELECT o.key, m.token FROM orders AS o"
            " LEFT JOIN payment_methods AS m ON m.id = o.payment_method_id"
            " WHERE o.state <> 'refused' ORDER BY o.key"
        )

    def test_first_payment_method_is_saved_and_another_one_pays_its_order_only(
        self, database: Database
    ) -> None:
        database.place(order("k-1", payment_method="tok-1"))
        database.place(order("k-2", payment_method="tok-2"))
        database.place(without_a_method(order("k-3")))

        assert self.saved(database) == [("alice", "tok-1")]
        assert self.paid_with(database) == [("k-1", "tok-1"), ("k-2", "tok-2"), ("k-3", "tok-1")]

    def test_payment_method_is_saved_for_later_orders_of_the_same_batch(
        self, database: Database
    ) -> None:
        answers = database.place(
            order("k-1", payment_method="tok-1"),
            without_a_method(order("k-2")),
            without_a_method(order("k-3", customer="bob")),
        )

        assert [a.verdict for a in answers] == ["accepted", "accepted", "refused"]
        assert self.paid_with(database) == [("k-1", "tok-1"), ("k-2", "tok-1")]

    def test_first_payment_method_of_a_batch_is_the_one_saved(self, database: Database) -> None:
        database.place(order("k-1", payment_method="tok-1"), order("k-2", payment_method="tok-2"))

        assert self.saved(database) == [("alice", "tok-1")]

    def test_order_without_any_payment_method_is_refused_and_may_be_placed_anew(
        self, database: Database
    ) -> None:
        document = without_a_method(order("k-1"))
        first, again = database.place(document, document)

        assert first.verdict is again.verdict is Verdict.REFUSED
        assert [(p.code, p.path) for p in first.problems] == [
            ("payment_method_missing", "payment_method")
        ]
        assert again.repeated
        assert database.value("SELECT count(*) FROM customers") == 0
        (answer,) = database.place(order("k-2"))
        assert answer.verdict is Verdict.ACCEPTED

    def test_payment_method_of_a_refused_order_is_not_saved(self, database: Database) -> None:
        answers = database.place(order("k-1", line("nothing")), without_a_method(order("k-2")))

        assert [a.verdict for a in answers] == [Verdict.REFUSED, Verdict.REFUSED]
        assert database.value("SELECT count(*) FROM payment_methods") == 0

    def test_payment_method_of_an_order_under_a_used_key_is_not_saved(
        self, database: Database
    ) -> None:
        database.place(order("k-1", line("nothing")))

        answers = database.place(order("k-1"), without_a_method(order("k-2")))

        assert [a.verdict for a in answers] == [Verdict.REJECTED, Verdict.REFUSED]
        assert database.value("SELECT count(*) FROM payment_methods") == 0

    def test_expiry_month_is_kept_as_its_last_day_and_a_later_one_replaces_it(
        self, database: Database
    ) -> None:
        months = ["2028-02", None, "2030-12"]
        kept = []
        for number, month in enumerate(months):
            expires = {"payment_method_expires": month} if month else {}
            database.place(order(f"k-{number}", **expires))
            kept.append(database.value("SELECT expires_on FROM payment_methods"))

        assert kept == [date(2028, 2, 29), date(2028, 2, 29), date(2030, 12, 31)]


def without_a_method(document: Any) -> Any:
    return {name: value for name, value in document.items() if name != "payment_method"}
