"""Every kind of failed task has an answer that a person can choose, and that leaves books right."""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, text

from autorenew.cli import main
from monitoring.audit import audit
from producers.control import failed, lanes
from producers.control.failed import CannotCancel
from producers.steps import (
    CONVERGE,
    DESTRUCTIVE,
    REQUEST,
    STEPS,
    SUSPEND,
    TERMINATE,
    WITHDRAW,
)
from schemas.catalogue.store import CatalogueCache
from schemas.values import Money
from tests.integration.test_left_out import failures, move, publish, sold_in_gb
from tests.integration.test_reminders import letters
from tests.integration.test_renewals import accepts, declines
from tests.support import given
from tests.support.operators import give_up
from workers import by_hand
from workers.billing.gateways.port import Charge, Refund
from workers.bootstrap import gateways_of
from workers.by_hand import CannotTell


def fault(world: Any, fault: str, operation: str, **fields: Any) -> None:
    world.fleet.simulator.simulator.faults.add(
        {"fault": fault, "operation": operation, "times": 10_000} | fields
    )


def cancel(world: Any, subject: uuid.UUID) -> None:
    with world.database.engine("api").begin() as tx:
        give_up(tx, subject, world.fleet.clock)
    world.fleet.settle(30)


def fail(world: Any, name: str, subject: uuid.UUID, queue: str = "billing") -> None:
    """A task that failed through a defect of ours."""
    world.database.run(
        "INSERT INTO tasks (name, subject, queue, lane, state, reason, error, attempts)"
        " VALUES (:name, :subject, :queue, 'destructive', 'failed', 'defect', 'x', 1)",
        name=name, subject=subject, queue=queue,
    )  # fmt: skip


def arrives(world: Any, operation: Charge | Refund) -> None:
    """The gateway does, late, what it did not answer."""

    async def perform() -> None:
        gateway = gateways_of(world.fleet.settings)["default"]
        assert (await gateway.perform(operation)).is_decided
        await gateway.close()

    asyncio.run(perform())


def done(world: Any, subject: uuid.UUID) -> None:
    with world.database.engine("provisioning").begin() as tx:
        by_hand.done(tx, subject, "ticket 4711", CatalogueCache(), world.fleet.clock)
    world.fleet.settle(30)


def extend(world: Any) -> None:
    """A person extends what there is at the infrastructure, past the fleet."""
    until = world.expiry(world.service()).isoformat()
    world.fleet.simulator.simulator.store._db.execute(
        "UPDATE resources SET paid_until = ?", (until,)
    )


def settle(world: Any, do: Callable[..., None], *words: Any, **flags: Any) -> None:
    with world.database.engine("billing").begin() as tx:
        do(tx, *words, "ticket 4711", CatalogueCache(), world.fleet.clock, **flags)
    world.fleet.settle(30)


def test_every_step_has_an_answer_beside_trying_again() -> None:
    assert {name for name in STEPS if not failed.possible(name, "active", "active")} == set()
    delivered = {name: failed.possible(name, "active", "active") for name in STEPS}
    assert delivered[CONVERGE] == ("done",)
    assert failed.possible(CONVERGE, "delivering", "active") == ("cancel",)
    assert failed.possible(CONVERGE, "delivering", "absent") == ("done",)
    assert failed.possible("refund", None, None) == ("settle",)
    assert failed.possible("charge", None, None) == ("cancel", "settle")
    assert failed.possible("a step of a later release", None, None) == ()


class TestCharge:
    """Of a renewal."""

    def in_doubt(self, life: Any) -> tuple[Any, Any, Any]:
        world = life()
        first = world.order()
        fault(world, "error", "charge")
        world.pass_until(first, -2.9)
        (task,) = failures(world)
        assert (task.name, task.reason) == ("charge", "gateway_unknown")
        assert task.actions == ("retry", "cancel", "settle")
        return world, first, task

    def test_that_never_arrived_counts_as_declined_once_it_was_asked_about(self, life: Any) -> None:
        world, first, task = self.in_doubt(life)
        accepts(world)

        cancel(world, task.subject)

        charges = world.database.all(
            "SELECT c.state, c.reason FROM charges AS c JOIN payment_requests AS r"
            " ON r.id = c.request_id WHERE r.order_id IS NULL"
        )
        assert charges == [("declined", "not_found")]
        assert failures(world) == []
        assert world.database.value("SELECT count(given_up_at) FROM payment_requests") == 0
        world.clean()

        world.pass_until(first, -0.5)  # the next day of charging
        assert world.service().paid_periods == 2
        world.clean()

    def test_that_was_taken_is_booked_although_it_was_given_up(self, life: Any) -> None:
        world, _, task = self.in_doubt(life)
        accepts(world)
        (row,) = world.database.all("SELECT key, amount FROM charges WHERE state = 'unknown'")
        arrives(world, Charge(str(row.key), Money(row.amount, "EUR"), "tok-alice", "alice"))

        cancel(world, task.subject)

        assert world.service().paid_periods == 2
        assert failures(world) == []
        world.clean()

    def test_that_was_never_begun_counts_as_declined(self, life: Any) -> None:
        world = life()
        first = world.order()
        world.database.run("UPDATE payment_methods SET gateway = 'gone'")
        world.pass_until(first, -2.9)
        (task,) = failures(world)
        assert task.reason == "no_such_gateway"

        cancel(world, task.subject)

        assert failures(world) == []
        assert world.database.value("SELECT max(declines) FROM renewals") == 1
        assert world.happened("charge.declined") == [("charge.declined", {"reason": "given_up"})]
        world.database.run("UPDATE payment_methods SET gateway = 'default'")
        world.clean()

    def test_in_doubt_a_person_says_that_it_was_taken(self, life: Any) -> None:
        world, _, task = self.in_doubt(life)

        settle(world, by_hand.settle_charge, task.subject, "gw-1", order_delays=[])

        assert world.service().paid_periods == 2
        assert failures(world) == []
        found = world.database.all("SELECT state, reference FROM charges WHERE reference = 'gw-1'")
        assert found == [("succeeded", "gw-1")]
        # The gateway's book says that it was not.
        with world.database.owner.connect() as tx:
            broken = [f.invariant for f in audit(tx, world.fleet.books()) if f.broken]
        assert broken == [
            "what the gateway took and gave back is what invoices and credit notes say"
        ]

    def test_in_doubt_a_person_says_that_it_was_not_taken(self, life: Any) -> None:
        world, first, task = self.in_doubt(life)

        settle(world, by_hand.settle_charge, task.subject, None, order_delays=[])
        accepts(world)

        assert world.service().paid_periods == 1
        assert failures(world) == []
        world.clean()
        world.pass_until(first, -0.5)
        assert world.service().paid_periods == 2
        world.clean()

    def test_that_is_not_in_doubt_is_not_settled_by_hand(self, life: Any) -> None:
        world = life()
        first = world.order()
        world.database.run("UPDATE payment_methods SET gateway = 'gone'")
        world.pass_until(first, -2.9)
        (task,) = failures(world)

        with pytest.raises(CannotTell, match="in doubt"):
            settle(world, by_hand.settle_charge, task.subject, "x", order_delays=[])
        with pytest.raises(CannotTell, match="no failed task"):
            settle(world, by_hand.settle_charge, uuid.uuid4(), "x", order_delays=[])


def test_a_charge_of_an_order_in_doubt_is_charged_anew_once_a_person_says_it_was_not_taken(
    life: Any,
) -> None:
    world = life([{"fault": "error", "operation": "charge", "times": 10_000}])
    world.send(given.order())
    (task,) = failures(world)
    accepts(world)

    settle(world, by_hand.settle_charge, task.subject, None, order_delays=[0.1])

    assert world.service().state == "active"
    states = world.database.all("SELECT attempt, state FROM charges ORDER BY attempt")
    assert states == [(1, "declined"), (2, "succeeded")]
    world.clean()


class TestRefund:
    def refused(self, life: Any, kind: str = "decline") -> tuple[Any, Any]:
        world = life([{"fault": "refuse", "operation": "create", "times": 10_000}])
        fault(world, kind, "refund")
        world.send(given.order())
        cancel(world, failures(world)[0].subject)
        (task,) = failures(world)
        assert (task.name, task.actions) == ("refund", ("retry", "settle"))
        return world, task

    def test_that_the_gateway_refuses_for_good_is_settled_by_hand(self, life: Any) -> None:
        world, task = self.refused(life)
        with pytest.raises(CannotCancel, match="failed settle"):
            cancel(world, task.subject)

        settle(world, by_hand.settle_refund, task.subject, "transfer-1")

        refunds = world.database.all(
            "SELECT attempt, state, reference, by_hand FROM refunds ORDER BY attempt"
        )
        assert refunds == [
            (1, "declined", None, False), (2, "succeeded", "transfer-1", True),
        ]  # fmt: skip
        assert failures(world) == []
        told = [detail for _, detail in world.happened("task.done_by_hand")]
        assert told == [{"task": "refund", "reference": "transfer-1", "because": "ticket 4711"}]
        world.clean()

    def test_in_doubt_is_asked_about_before_it_is_settled_by_hand(self, life: Any) -> None:
        world, task = self.refused(life, "error")
        with pytest.raises(CannotTell, match="in-doubt"):
            settle(world, by_hand.settle_refund, task.subject, "transfer-1")

        settle(world, by_hand.settle_refund, task.subject, "transfer-1", in_doubt=True)

        states = world.database.all("SELECT attempt, state, by_hand FROM refunds")
        assert states == [(1, "succeeded", True)]
        world.clean()

    def test_that_was_made_twice_is_told_by_the_audit(self, life: Any) -> None:
        world, task = self.refused(life, "error")
        accepts(world)
        (row,) = world.database.all("SELECT key, charge_key, amount FROM refunds")
        arrives(world, Refund(str(row.key), str(row.charge_key), Money(row.amount, "EUR")))
        settle(world, by_hand.settle_refund, task.subject, "transfer-1", in_doubt=True)

        with world.database.owner.connect() as tx:
            broken = [f.invariant for f in audit(tx, world.fleet.books()) if f.broken]
        assert broken == [
            "what the gateway took and gave back is what invoices and credit notes say"
        ]


class TestConverge:
    @pytest.mark.parametrize("kind", ["refuse", "error"])
    def test_an_extension_that_was_done_by_hand(self, life: Any, kind: str) -> None:
        world = life()
        first = world.order()
        fault(world, kind, "extend")
        world.pass_until(first, -2.5)
        (task,) = failures(world)
        assert (task.name, task.actions) == ("converge", ("retry", "done"))
        with pytest.raises(CannotCancel, match="failed done"):
            cancel(world, task.subject)

        extend(world)
        done(world, task.subject)

        service = world.service()
        assert service.confirmed_until == world.expiry(service) > first.confirmed_until
        assert service.resource_id == first.resource_id
        assert failures(world) == []
        world.clean()

    def test_a_suspension_and_a_deletion_that_were_done_by_hand(self, life: Any) -> None:
        world = life()
        first = world.order()
        declines(world)
        fault(world, "refuse", "suspend")
        fault(world, "refuse", "terminate")
        world.pass_until(first, 6)
        done(world, failures(world)[0].subject)
        suspended = world.service()
        assert (suspended.state, suspended.confirmed) == ("suspended", "suspended")
        assert suspended.suspended_at is not None
        assert suspended.next_step == "remind"

        world.pass_until(first, 32)
        done(world, failures(world)[0].subject)
        ended = world.service()
        assert (ended.state, ended.confirmed, ended.next_step_at) == ("terminated", "absent", None)
        kinds = [d["operation"] for n, d in world.happened("operation.done")]
        assert kinds == ["create", "suspend", "terminate"]

    def test_a_service_that_was_given_up_and_whose_driver_is_gone(self, life: Any) -> None:
        world = life([{"fault": "refuse", "operation": "create", "times": 10_000}])
        fault(world, "refuse", "terminate")
        world.send(given.order())
        (task,) = failures(world)
        with pytest.raises(CannotTell, match="failed cancel"):
            done(world, task.subject)
        world.database.run("UPDATE services SET driver = 'gone'")
        cancel(world, task.subject)
        (task,) = failures(world)
        assert (task.reason, task.actions) == ("no_such_driver", ("retry", "done"))

        done(world, task.subject)

        assert world.service().state == "cancelled"
        assert failures(world) == []
        world.clean()

    def test_what_is_paid_later_is_done_by_the_driver_again(self, life: Any) -> None:
        world = life()
        first = world.order()
        fault(world, "refuse", "extend")
        world.pass_until(first, -2.5)
        done(world, failures(world)[0].subject)
        accepts(world)

        world.pass_days(31)

        assert world.service().paid_periods == 3
        kinds = [d["operation"] for n, d in world.happened("operation.done")]
        assert kinds == ["create", "extend", "extend"]
        world.clean()


class TestRemind:
    def test_an_email_that_cannot_be_sent_counts_as_one_that_cannot_be_delivered(
        self, life: Any
    ) -> None:
        world = life()
        first = world.order()
        world.click("mode", mode="manual")
        world.database.run("UPDATE customers SET email = 'alice@example.com'")
        world.fleet.mailbox.refuse("alice@*")
        world.pass_until(first, -14.1)
        (task,) = failures(world)
        assert task.actions == ("retry", "cancel")

        cancel(world, task.subject)

        assert failures(world) == []
        refused, given_up = world.database.all("SELECT refused_at, given_up_at FROM emails")[0]
        assert refused <= given_up
        world.clean()
        world.pass_until(first, 7.5)
        assert world.service().state == "suspended"

    def test_one_that_could_not_be_written_ends_nothing_and_is_claimed_anew(
        self, life: Any
    ) -> None:
        world = life()
        first = world.order(given.line("site"))
        world.click("mode", mode="manual")
        publish(world, *sold_in_gb())
        move(world, first, "GB")
        world.pass_until(first, -6.1)
        before = failures(world)
        assert {task.reason for task in before} == {"tax_not_supported"}
        move(world, first, "FR")

        for task in before:
            cancel(world, task.subject)

        world.pass_days(1)
        assert failures(world) == []
        assert len(letters(world)) == 1
        assert world.database.value("SELECT count(refused_at) FROM emails") == 0
        kinds = [detail["kinds"] for _, detail in world.happened("notice.sent")]
        assert kinds == [["before-7"]]
        world.clean()

    def test_only_a_failed_one_can_be_given_up(self, life: Any) -> None:
        world = life()
        first = world.order()
        world.click("mode", mode="manual")
        world.pass_until(first, -14.1)
        world.fleet.mailbox.refuse("*")
        world.pass_until(first, -6.1)
        _, refused = world.database.all("SELECT id, begun_at FROM emails ORDER BY day")
        (task,) = failures(world)
        assert task.subject == refused.id

        with world.database.engine("api").begin() as tx:
            rows = tx.execute(text("UPDATE emails SET refused_at = now() RETURNING id")).scalars()
            assert list(rows) == [refused.id]
            assert tx.execute(text("DELETE FROM notices")).rowcount == 0
            tx.rollback()
        with world.database.engine("reminders").connect() as tx:
            assert tx.execute(text("SELECT count(*) FROM notices")).scalar_one() == 2


class TestDecision:
    @pytest.mark.parametrize("name", [REQUEST, WITHDRAW, SUSPEND, TERMINATE])
    def test_that_is_not_due_is_dropped_and_decided_anew(self, life: Any, name: str) -> None:
        world = life()
        service = world.order()
        fail(world, name, service.id)
        world.database.run("UPDATE services SET next_step = NULL, next_step_at = NULL")

        cancel(world, service.id)

        assert failures(world) == []
        assert world.service().next_step == "remind"
        world.clean()

    def test_that_is_due_is_not_dropped(self, life: Any) -> None:
        world = life()
        first = world.order()
        declines(world)
        with world.database.engine("api").begin() as tx:
            pause(tx)
        world.pass_until(first, 6)
        assert world.service().next_step == "suspend"
        world.database.run("DELETE FROM batches; DELETE FROM tasks WHERE name = 'suspend'")
        fail(world, SUSPEND, first.id)

        with pytest.raises(CannotCancel, match="is due"):
            cancel(world, first.id)

        assert world.click("stop").verdict == "accepted"
        cancel(world, first.id)
        assert [task.name for task in failures(world)] == []

    def test_a_renewal_that_cannot_be_quoted_is_dropped_once_its_customer_stopped_it(
        self, life: Any
    ) -> None:
        world = life()
        first = world.order()
        world.database.run("DELETE FROM prices")
        world.database.run("UPDATE catalogue_version SET version = version + 1")
        world.pass_until(first, -2.9)
        (task,) = failures(world)
        assert (task.name, task.reason, task.subject) == ("request", "price_gone", first.id)
        with pytest.raises(CannotCancel, match="is due"):
            cancel(world, first.id)

        world.click("stop")
        cancel(world, first.id)

        assert failures(world) == []
        world.clean()


def pause(tx: Connection) -> None:
    lanes.pause(tx, DESTRUCTIVE.lane, "test")


@pytest.fixture
def cli(life: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def start(*faults: Any) -> tuple[Any, Callable[..., Result]]:
        world = life(list(faults))
        monkeypatch.setenv("AUTORENEW_CLOCK", "virtual")

        def run(role: str, *words: str) -> Result:
            url = world.database.engine(role).url.set(drivername="postgresql")
            monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))
            result = CliRunner().invoke(main, ["failed", *words])
            world.fleet.settle(30)
            return result

        return world, run

    return start


def test_the_command_line_lists_what_is_possible_and_settles_a_refund(cli: Any) -> None:
    world, run = cli({"fault": "refuse", "operation": "create", "times": 10_000})
    fault(world, "decline", "refund")
    world.send(given.order())
    (listed,) = map(json.loads, run("readonly", "list", "--json").stdout.splitlines())
    assert listed["possible"] == ["retry", "edit", "cancel"]
    assert run("api", "cancel", listed["subject"], "--yes").exit_code == 0
    (listed,) = map(json.loads, run("api", "list", "--json").stdout.splitlines())
    assert (listed["task"], listed["possible"]) == ("refund", ["retry", "settle"])
    subject = listed["subject"]
    refused = run("api", "cancel", subject, "--yes")
    assert refused.exit_code == 2
    assert "autorenew failed settle" in refused.stderr or "failed settle" in str(refused.exception)

    assert run("billing", "settle", subject, "--yes").exit_code == 2
    assert run("billing", "settle", subject, "--not-taken", "--yes").exit_code == 2
    settled = run("billing", "settle", subject, "--reference", "transfer-1", "--yes")
    assert (settled.exit_code, settled.stdout) == (0, "settled\n")
    assert run("billing", "settle", subject, "--reference", "transfer-1", "--yes").exit_code == 2
    world.clean()


def test_the_command_line_marks_as_done_by_hand(cli: Any) -> None:
    world, run = cli()
    first = world.order()
    fault(world, "refuse", "extend")
    world.pass_until(first, -2.5)

    extend(world)
    assert run("provisioning", "done", str(first.id), "--yes").exit_code == 2
    result = run("provisioning", "done", str(first.id), "--because", "X-1", "--by", "eve", "--yes")

    assert (result.exit_code, result.stdout) == (0, "1 done by hand\n")
    told = [detail for _, detail in world.happened("task.done_by_hand")]
    assert told == [{"task": "converge", "because": "X-1", "by": "eve"}]
    world.clean()
