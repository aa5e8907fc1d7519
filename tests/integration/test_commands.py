"""Commands of customers: each is carried out once however often it is sent, or refused as a whole
with its reasons."""

import threading
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from producers.intake.agreements import Agreement, agree
from schemas.messages import moment_text
from tests.conftest import Database
from tests.integration.test_renewals import accepts, declines, publish
from tests.support import given
from tests.support.given import line, wait_until

TERMS = {"contract": "terms", "version": 2}


def codes(answer: Any) -> list[str]:
    return [problem.code for problem in answer.problems]


def seen(world: Any, *services: Any, days: int = 0) -> list[dict[str, str]]:
    """Services with the expiry their customer sees, moved by ``days``."""
    by = timedelta(days=days)
    return [{"id": str(s.id), "expires_on": (world.expiry(s) + by).isoformat()} for s in services]


def delivered(database: Database, number: int = 1) -> list[str]:
    """Delivered services of alice, on a database without a fleet."""
    with database.owner.begin() as tx:
        return [str(tx.execute(SERVICE).scalar_one()) for _ in range(number)]


SERVICE = text("""
    INSERT INTO services (id, customer_id, subsidiary, plan, universe, brand, driver,
        configuration, period_months, state, desired, anchor, paid_periods, expires_at)
    VALUES (gen_random_uuid(), 'alice', 'FR', 'site', 'web', 'ovh', 'web', '{}', 1, 'active',
        'active', '2026-01-01', 1, '2026-02-01')
    RETURNING id
""")


def now() -> datetime:
    return datetime.now(UTC)


def modes(database: Database) -> list[str]:
    return [mode for (mode,) in database.all("SELECT mode FROM services ORDER BY mode")]


class TestEachCommand:
    def test_stop_ends_the_renewal_and_resume_brings_it_back(self, database: Database) -> None:
        one, other = delivered(database, 2)
        stop = {"command": "stop", "customer": "alice", "services": [one]}
        resume = {"command": "resume", "customer": "alice", "services": [one, other]}

        assert [a.repeated for a in database.place(stop, stop)] == [False, True]
        assert modes(database) == ["automatic", "stop"]
        assert [a.repeated for a in database.place(resume, resume)] == [False, True]

        assert modes(database) == ["automatic", "automatic"]
        changes = database.all("SELECT detail FROM events WHERE name = 'mode.changed' ORDER BY id")
        assert [detail["mode"] for (detail,) in changes] == ["stop", "automatic"]

    def test_mode_command_changes_the_renewal_mode(self, database: Database) -> None:
        services = delivered(database)
        about_it = {"command": "mode", "customer": "alice", "services": services}

        for mode in ("manual", "stop", "automatic"):
            answers = database.place({**about_it, "mode": mode}, {**about_it, "mode": mode})
            assert [a.repeated for a in answers] == [False, True]
            assert modes(database) == [mode]

    def test_decision_older_than_a_change_of_mode_is_not_carried_out_but_may_be_asked_again(
        self, database: Database
    ) -> None:
        # Given a service that was stopped, resumed and made manual after the customer's decision
        services = delivered(database)
        about_it = {"customer": "alice", "services": services}
        before, after = "2026-01-02T03:04:05.678901Z", moment_text(now() + timedelta(minutes=1))
        stop: dict[str, Any] = {"command": "stop", **about_it}
        resume: dict[str, Any] = {"command": "resume", **about_it}
        assert not database.place({**stop, "as_of": before})[0].repeated  # never changed before

        # Then a repeated click changes nothing, and an older resume is refused
        assert database.place({**stop, "as_of": before})[0].repeated
        (answer,) = database.place({**resume, "as_of": before})
        assert (answer.verdict, codes(answer)) == ("refused", ["link_outdated"])
        assert "ask again" in answer.problems[0].message
        assert modes(database) == ["stop"]
        # And once it was resumed, the older stop is
        assert database.place({**resume, "as_of": after})[0].verdict == "accepted"
        (answer,) = database.place({**stop, "as_of": before})
        assert (codes(answer), answer.problems[0].path) == (["link_outdated"], "services.0")
        assert modes(database) == ["automatic"]
        assert database.place(stop)[0].verdict == "accepted"  # asked again

    def test_of_several_services_only_the_changed_ones_are_named_and_none_is_changed(
        self, database: Database
    ) -> None:
        one, other = sorted(delivered(database, 2))
        whose = {"command": "stop", "customer": "alice"}
        manual = {**whose, "command": "mode", "mode": "manual", "services": [other]}
        assert database.place(manual)[0].verdict == "accepted"

        as_of = "2026-01-02T03:04:05.678901Z"
        (answer,) = database.place({**whose, "services": [one, other], "as_of": as_of})

        assert [(p.code, p.path) for p in answer.problems] == [("link_outdated", "services.1")]
        assert modes(database) == ["automatic", "manual"]

    def test_moment_of_a_decision_that_cannot_be_is_refused(self, database: Database) -> None:
        stop = {"command": "stop", "customer": "alice", "services": delivered(database)}
        (answer,) = database.place({**stop, "as_of": "2026-19-39T99:99:99.000000Z"})
        assert codes(answer) == ["date_invalid"]
        (answer,) = database.place({**stop, "as_of": "yesterday"})
        assert codes(answer) == ["field_invalid"]

    def test_renewal_decided_before_a_stop_is_refused_and_one_decided_after_it_pays(
        self, life: Any
    ) -> None:
        world = life()
        first = world.order()
        before = moment_text(world.fleet.clock.now())
        world.click("stop", first)
        after = moment_text(world.fleet.clock.now())

        answer = world.renew(first, as_of=before)
        assert (answer.verdict, codes(answer)) == ("refused", ["link_outdated"])
        assert world.service().paid_periods == 1
        assert world.renew(first, as_of=after).verdict == "accepted"
        assert world.service().paid_periods == 2
        world.clean()

    def test_renew_command_pays_for_the_next_period(self, life: Any) -> None:
        world = life()
        first = world.order()
        services = seen(world, first)

        answers = [world.command("renew", services=services) for _ in range(3)]

        assert [a.verdict for a in answers] == ["accepted"] * 3
        assert [a.repeated for a in answers] == [False, True, True]
        assert world.service().paid_periods == 2
        world.clean()

    def test_second_click_on_renew_before_the_first_is_done_changes_nothing(
        self, life: Any
    ) -> None:
        world = life()
        first = world.order()
        document = {"command": "renew", "customer": "alice", "services": seen(world, first, first)}

        answers = world.send(document, document)

        assert [a.repeated for a in answers] == [False, True]
        assert world.service().paid_periods == 2

    def test_renew_pays_early_from_the_expiry_again_and_again(self, life: Any) -> None:
        world = life()
        world.order()

        for _ in range(3):
            assert world.renew().repeated is False

        assert world.service().paid_periods == 4
        world.clean()

    def test_renew_of_several_is_one_payment(self, life: Any) -> None:
        world = life()
        world.order(line("site"), line("vm"))

        world.renew()

        assert [s.paid_periods for s in world.services()] == [2, 2]
        renewals = "SELECT count(*) FROM payment_requests WHERE order_id IS NULL"
        assert world.database.value(renewals) == 1

    def test_renew_of_a_stopped_or_manual_service_pays_for_one_period(self, life: Any) -> None:
        world = life()
        world.order(line(quantity=2))
        one, other = world.services()
        world.click("stop", one)
        world.click("mode", other, mode="manual")

        world.renew()

        assert [(s.mode, s.paid_periods) for s in world.services()] == [("stop", 2), ("manual", 2)]

    def test_renew_carries_a_contract_unless_it_is_refused(self, life: Any) -> None:
        world = life()
        first = world.order()
        publish(world, 3)
        agreed = [{"contract": "terms", "version": 3}]
        assert codes(world.renew()) == ["contract_missing"]
        late = world.command("renew", services=seen(world, first, days=40), contracts=agreed)
        assert codes(late) == ["expiry_unknown"]
        assert world.service().agreed_version == 2

        answer = world.renew(first, contracts=agreed)

        assert (answer.verdict, answer.repeated) == ("accepted", False)
        assert (world.service().paid_periods, world.service().agreed_version) == (2, 3)

    def test_accept_command_records_the_agreement(self, life: Any) -> None:
        world = life()
        world.order()
        publish(world, 3)
        contracts = [{"contract": "terms", "version": 3}]

        answers = [world.command("accept", contracts=contracts) for _ in range(2)]

        assert [(a.verdict, a.repeated) for a in answers] == [
            ("accepted", False),
            ("accepted", True),
        ]
        assert world.service().agreed_version == 3

    def test_payment_method_command_saves_the_method_and_moves_the_services_to_it(
        self, database: Database
    ) -> None:
        database.place(given.order())
        delivered(database, 2)
        document = {
            "command": "payment_method",
            "customer": "alice",
            "payment_method": "tok-new",
            "payment_method_expires": "2031-02",
        }

        assert [a.repeated for a in database.place(document, document)] == [False, True]

        paying = database.all(
            "SELECT DISTINCT m.expires_on, m.id FROM services AS s"
            " JOIN payment_methods AS m ON m.id = s.payment_method_id"
        )
        assert [str(day) for day, _ in paying] == ["2031-02-28"]
        token = (
            "SELECT token FROM payment_methods AS m"
            " JOIN customers AS c ON c.payment_method_id = m.id"
        )
        assert database.value(token) == "tok-new"

    def test_a_payment_method_for_some_services_leaves_the_others_and_the_saved_one(
        self, life: Any
    ) -> None:
        world = life()
        first = world.order(line(quantity=2))
        one, other = world.services()
        saved = world.database.value("SELECT payment_method_id FROM customers")

        world.click("payment_method", one, payment_method="tok-new")

        new = {s.id: s.payment_method_id for s in world.services()}
        assert new[other.id] == saved == other.payment_method_id
        assert new[one.id] != saved
        assert world.database.value("SELECT payment_method_id FROM customers") == saved
        world.pass_until(first, -2.9)
        assert {s.paid_periods for s in world.services()} == {2}
        renewals = "SELECT count(*) FROM payment_requests WHERE order_id IS NULL"
        assert world.database.value(renewals) == 2  # each is paid by its own method
        world.clean()

    def test_new_method_retries_the_declined_renewals_together_at_once(self, life: Any) -> None:
        world = life()
        first = world.order(line(quantity=3))
        declines(world)
        world.pass_until(first, -2.5)
        accepts(world)

        world.command("payment_method", payment_method="tok-new")

        assert {s.paid_periods for s in world.services()} == {2}
        world.clean()

    def test_a_method_that_expires_in_the_month_it_would_be_charged_still_pays(
        self, life: Any
    ) -> None:
        world = life()
        first = world.order()
        charged_on = world.expiry(first) - timedelta(days=3)
        month = f"{charged_on:%Y-%m}"
        world.command("payment_method", payment_method="tok-x", payment_method_expires=month)

        world.pass_until(first, -2.9)

        assert world.service().paid_periods == 2


def about(world: Any, command: str, *services: Any) -> Any:
    """One of the commands about services, complete."""
    if command == "renew":
        return world.command("renew", services=seen(world, *services))
    more = {"mode": {"mode": "manual"}, "payment_method": {"payment_method": "tok-2"}}
    return world.click(command, *services, **more.get(command, {}))


ABOUT_SERVICES = ["stop", "resume", "mode", "renew", "payment_method"]


class TestWhatIsRefused:
    def test_service_of_another_customer_or_of_none_is_refused(self, life: Any) -> None:
        world = life()
        world.order()
        world.send(given.order("k-2", customer="bob"))
        mine, theirs = sorted(world.services(), key=lambda s: str(s.customer_id))
        nobodys = SimpleNamespace(id=uuid.uuid4(), expires_at=mine.expires_at)
        before = world.services()

        for command in ABOUT_SERVICES:
            answer = about(world, command, mine, theirs, nobodys)
            assert answer.verdict == "refused"
            assert [(p.code, p.path) for p in answer.problems] == [
                ("service_unknown", "services.1"),
                ("service_unknown", "services.2"),
            ]

        assert world.services() == before  # not even what is theirs

    def test_ended_service_is_refused(self, life: Any) -> None:
        world = life()
        first = world.order()
        world.click("stop")
        world.pass_until(first, 0.1)
        ended = world.service()
        assert ended.state == "terminated"

        for command in ABOUT_SERVICES:
            assert codes(about(world, command, ended)) == ["service_ended"]
        assert world.service() == ended

    def test_service_that_is_not_delivered_is_refused(self, life: Any) -> None:
        world = life()
        world.database.run("INSERT INTO lane_pauses (lane, reason) VALUES ('driver:web', 'test')")
        world.send(given.order("k-1"))
        assert world.service().state == "delivering"
        coming = SimpleNamespace(id=world.service().id, expires_at=datetime.now(UTC))

        for command in ABOUT_SERVICES:
            assert codes(about(world, command, coming)) == ["service_not_delivered"]

    def test_renewal_from_an_expiry_the_service_never_had_is_refused(self, life: Any) -> None:
        world = life()
        first = world.order()
        no_date = [{"id": str(first.id), "expires_on": "2027-02-30"}]

        late = world.command("renew", services=seen(world, first, days=1))
        none = world.command("renew", services=no_date)

        assert late.verdict == none.verdict == "refused"
        assert [(p.code, p.path) for p in (*late.problems, *none.problems)] == [
            ("expiry_unknown", "services.0.expires_on"),
            ("date_invalid", "services.0.expires_on"),
        ]
        assert world.expiry(first).isoformat() in late.problems[0].message

    def test_renewal_from_an_expiry_that_is_past_changes_nothing(self, life: Any) -> None:
        world = life()
        first = world.order()
        world.renew()

        answer = world.command("renew", services=seen(world, first))

        assert (answer.verdict, answer.repeated) == ("accepted", True)
        assert world.service().paid_periods == 2

    def test_unknown_or_outdated_contract_is_refused(self, database: Database) -> None:
        database.place(given.order())
        contracts = [
            TERMS, {"contract": "other", "version": 1}, {"contract": "terms", "version": 1},
            {"contract": "terms", "version": 9},
        ]  # fmt: skip

        (answer,) = database.place(
            {"command": "accept", "customer": "alice", "contracts": contracts}
        )

        assert [(p.code, p.path) for p in answer.problems] == [
            ("contract_unknown", "contracts.1"),
            ("contract_outdated", "contracts.2"),
            ("contract_outdated", "contracts.3"),
        ]

    @pytest.mark.parametrize(
        "document",
        [
            {"command": "accept", "contracts": [TERMS]},
            {"command": "payment_method", "payment_method": "tok"},
        ],
    )
    def test_unknown_customer_is_refused(self, database: Database, document: Any) -> None:
        (answer,) = database.place({**document, "customer": "stranger"})
        assert codes(answer) == ["customer_unknown"]
        assert database.value("SELECT count(*) FROM agreements") == 0

    @pytest.mark.parametrize(
        ("document", "code", "path"),
        [
            ({"command": "delete", "services": ["x"]}, "command_unknown", ""),
            ({"command": None}, "command_unknown", ""),
            ({"command": ["stop"]}, "command_unknown", ""),
            ({"command": "stop"}, "field_missing", "services"),
            ({"command": "stop", "services": []}, "field_invalid", "services"),
            ({"command": "stop", "services": ["no"]}, "field_invalid", "services.0"),
            (
                {"command": "stop", "services": [str(uuid.uuid4()).upper()]},
                "field_invalid",
                "services.0",
            ),
            (
                {"command": "stop", "services": [str(uuid.uuid4())], "when": "now"},
                "field_unknown",
                "when",
            ),
            (
                {"command": "mode", "services": [str(uuid.uuid4())], "mode": "sometimes"},
                "field_invalid",
                "mode",
            ),
            (
                {"command": "renew", "services": [{"id": str(uuid.uuid4()), "expires_on": "soon"}]},
                "field_invalid",
                "services.0.expires_on",
            ),
            (
                {"command": "renew", "services": [str(uuid.uuid4())]},
                "field_invalid",
                "services.0",
            ),
            (
                {"command": "payment_method", "payment_method": "t", "payment_method_expires": "x"},
                "payment_method_expires_invalid",
                "payment_method_expires",
            ),
            ({"command": "payment_method"}, "payment_method_missing", "payment_method"),
            ({"command": "accept", "contracts": []}, "field_invalid", "contracts"),
        ],
    )
    def test_a_document_of_the_wrong_shape_is_rejected_by_field(
        self, database: Database, document: Any, code: str, path: str
    ) -> None:
        (answer,) = database.place({"customer": "alice", **document})

        assert answer.verdict == "rejected"
        assert [(p.code, p.path) for p in answer.problems] == [(code, path)]
        kept = database.all("SELECT code, upstream, door, times FROM rejected_documents")
        assert kept == [(code, "shop", "python", 1)]

    def test_command_without_a_customer_is_rejected(self, database: Database) -> None:
        (answer,) = database.place({"command": "stop", "services": [str(uuid.uuid4())]})
        assert [(p.code, p.path) for p in answer.problems] == [("field_missing", "customer")]

    def test_refused_command_is_kept_without_its_secrets(self, database: Database) -> None:
        database.place(given.order())
        other = str(uuid.uuid4())
        document = {"command": "payment_method", "customer": "alice", "services": [other]}

        for _ in range(2):
            database.place({**document, "payment_method": "tok-secret"})

        (kept,) = database.all("SELECT code, times, body FROM rejected_documents")
        assert (kept.code, kept.times) == ("service_unknown", 2)
        assert "tok-secret" not in kept.body
        assert other in kept.body

    def test_bad_command_does_not_harm_its_neighbours(self, database: Database) -> None:
        one, other = delivered(database, 2)
        stop = {"command": "stop", "customer": "alice"}

        answers = database.place(
            {**stop, "services": [one]},
            {**stop, "services": [str(uuid.uuid4())]},
            {**stop, "services": "all"},
            given.order("k-2", line("no-such-plan")),
            {**stop, "services": [other]},
        )

        assert [a.verdict for a in answers] == [
            "accepted", "refused", "rejected", "refused", "accepted",
        ]  # fmt: skip
        assert modes(database) == ["stop", "stop"]
        kept = database.all("SELECT code FROM rejected_documents ORDER BY code")
        assert [code for (code,) in kept] == ["field_invalid", "plan_unknown", "service_unknown"]


class TestInOneBatch:
    def test_a_command_sees_the_order_before_it(self, database: Database) -> None:
        method = {"command": "payment_method", "customer": "alice", "payment_method": "tok-2"}

        early, answer, late = database.place(method, given.order("k-1"), method)

        assert codes(early) == ["customer_unknown"]
        assert (answer.verdict, late.verdict) == ("accepted", "accepted")
        saved = "SELECT count(*) FROM customers AS c JOIN payment_methods AS m"
        saved += " ON m.id = c.payment_method_id WHERE m.token = 'tok-2'"
        assert database.value(saved) == 1

    def test_an_order_after_a_command_pays_with_the_method_it_saved(
        self, database: Database
    ) -> None:
        database.place(given.order("k-1"))
        bare = given.order("k-2", line("vm"))
        del bare["payment_method"]
        method = {"command": "payment_method", "customer": "alice", "payment_method": "tok-2"}

        database.place(method, bare)

        used = "SELECT m.token FROM orders AS o JOIN payment_methods AS m"
        used += " ON m.id = o.payment_method_id WHERE o.key = 'k-2'"
        assert database.value(used) == "tok-2"

    def test_commands_are_done_in_their_order(self, database: Database) -> None:
        about_it = {"customer": "alice", "services": delivered(database)}

        database.place(
            {"command": "stop", **about_it},
            {"command": "resume", **about_it},
            {"command": "mode", "mode": "manual", **about_it},
        )

        assert modes(database) == ["manual"]


class TestLocks:
    def test_a_payment_method_waits_for_an_order_before_it_holds_a_service(
        self, database: Database
    ) -> None:
        database.place(given.order("k-1"))
        delivered(database)
        method = {"command": "payment_method", "customer": "alice", "payment_method": "tok-2"}
        answers: list[Any] = []
        command = threading.Thread(target=lambda: answers.extend(database.place(method)))

        # Given an order of hers that has written her row, and not yet accepted the contract
        with database.engine("api").begin() as order:
            order.execute(text("UPDATE customers SET updated_at = now() WHERE id = 'alice'"))
            command.start()
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            wait_until(lambda: database.value(waiting), "the command waits for the order")
            # When it goes on to her services, then nobody holds them. A deadlock, which would end
            # the command, is found after a second.
            order.execute(text("SET LOCAL lock_timeout = '100ms'"))
            agreement = Agreement("alice", given.TERMS.code, given.TERMS.version)
            assert agree(order, [agreement], given.CATALOGUE, datetime.now(UTC))

        command.join(30)
        assert [answer.verdict for answer in answers] == ["accepted"]
