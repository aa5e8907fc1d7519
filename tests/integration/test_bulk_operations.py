"""Bulk operations: what an operator wants done to many failed tasks goes on without them."""

import threading
import uuid
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from monitoring.audit import audit
from producers import history
from producers.control import breakers, bulk, bulk_running, failed, groups, lanes
from producers.control.bulk import BulkOperation, NoBulkOperation
from producers.control.bulk_running import CHUNK
from producers.control.naming import UnknownName
from producers.control.selection import Filters
from producers.history import Operator
from producers.scheduler.bulk import BulkRunner
from schemas.values import BulkKind, BulkState, OpenCause
from tests.conftest import Database
from tests.support.given import line, order, wait_until

REFUSE = {"fault": "refuse", "operation": "create", "times": 100_000}
EVE = Operator("eve", "stock is back")
THIRTY = [line("site", quantity=10)] * 3


class World:
    """Failed tasks, and what an operator does about them."""

    def __init__(self, database: Database, fleet: Any = None) -> None:
        self.fleet = fleet
        self.database = database

    def fail(self, *orders: Any) -> None:
        """Orders whose services cannot be created."""
        answers = self.database.place(*orders)
        assert all(answer.verdict == "accepted" for answer in answers), answers
        self.fleet.wait_until_idle(30)

    def put(self, number: int, *, code: str | None = None, lane: str = "gateway") -> None:
        """Failed tasks of nothing, where no worker runs."""
        self.database.run(
            "INSERT INTO tasks (name, subject, queue, lane, state, run_at, reason, code, attempts,"
            " total_attempts, first_failed_at)"
            " SELECT 'charge', gen_random_uuid(), 'billing', :lane, 'failed', now(), 'declined',"
            "   :code, 1, 1, now() FROM generate_series(1, :number)",
            number=number, lane=lane, code=code,
        )  # fmt: skip
        self.database.run(
            "INSERT INTO routes VALUES ('billing', 'charge', :lane) ON CONFLICT DO NOTHING",
            lane=lane,
        )

    def mend(self) -> None:
        self.fleet.simulator.simulator.faults.clear()

    def start(self, kind: BulkKind = BulkKind.RETRY, **options: Any) -> uuid.UUID:
        filters = options.pop("filters", Filters())
        with self.database.engine("api").begin() as tx, history.acting(EVE):
            return bulk.start(tx, kind, filters, **options).id

    def get(self, id: uuid.UUID) -> BulkOperation:
        with self.database.engine("readonly").connect() as tx:
            return bulk.get(tx, id)

    def ends(self, id: uuid.UUID, timeout: float = 30.0) -> BulkOperation:
        wait_until(lambda: self.get(id).is_over, "the operation ends", timeout)
        return self.get(id)

    def step(self, id: uuid.UUID, times: int = 1) -> None:
        for _ in range(times):
            BulkRunner(self.database.engine("scheduler")).step(id)

    def end_ready(self, *, failed_for: str, code: str | None = None) -> int:
        """Whatever is ready fails."""
        with self.database.owner.begin() as tx:
            changed = tx.execute(
                text(
                    "UPDATE tasks SET state = 'failed', reason = :reason, code = :code,"
                    " attempts = 1, total_attempts = total_attempts + 1, run_at = now()"
                    " WHERE state = 'ready'"
                ),
                {"reason": failed_for, "code": code},
            )
            return changed.rowcount

    def count(self, what: str = "state = 'failed'") -> int:
        count: int = self.database.value(f"SELECT count(*) FROM tasks WHERE {what}")
        return count

    def states(self) -> list[str]:
        return [row.state for row in self.database.all("SELECT state FROM services ORDER BY id")]

    def told(self, name: str) -> list[Any]:
        query = "SELECT detail FROM events WHERE name = :name ORDER BY id"
        return [row.detail for row in self.database.all(query, name=name)]

    def clean(self) -> None:
        with self.database.engine("readonly").connect() as tx:
            assert [finding for finding in audit(tx) if finding.broken] == []


@pytest.fixture
def world(embedded: Any, database: Database) -> World:
    return World(database, embedded([REFUSE]))


@pytest.fixture
def still(database: Database) -> World:
    """No fleet runs: steps are taken by the test."""
    return World(database)


class TestRetry:
    def test_failed_tasks_are_retried_by_the_fleet(self, world: World) -> None:
        world.fail(order("k-1", *THIRTY))
        world.mend()

        ended = world.ends(world.start())

        assert ended.state is BulkState.DONE
        assert (ended.total, ended.sent, ended.done, ended.failed) == (30, 30, 30, 0)
        assert world.states() == ["active"] * 30
        retried = world.told("task.retried")
        assert len(retried) == 30
        told = {"task": "converge", "by": "eve", "because": "stock is back", "bulk": str(ended.id)}
        assert retried[0] == told
        world.clean()

    def test_one_that_fails_again_in_the_same_way_halts_it(self, world: World) -> None:
        world.fail(order("k-1", *THIRTY))

        ended = world.ends(world.start())

        assert ended.state is BulkState.HALTED
        assert (ended.total, ended.sent, ended.failed) == (30, 1, 1)
        assert ended.reason is not None
        assert "driver_refused: out_of_stock" in ended.reason
        assert len(world.told("task.retried")) == 1
        (halted,) = world.told("bulk.halted")
        assert (halted["sent"], halted["by"]) == (1, "eve")

    def test_batches_grow_tenfold_once_all_of_one_were_tried(self, still: World) -> None:
        still.put(200)
        id = still.start()
        sizes = []
        while not still.get(id).is_over:
            still.step(id, 3)
            still.step(id)  # and goes no further while one of the batch is not tried
            sizes.append(still.count("state = 'ready'"))
            still.database.run("DELETE FROM tasks WHERE state = 'ready'")
            still.step(id)
        assert [size for size in sizes if size] == [1, 10, 100, 89]

    def test_another_failure_is_counted_and_does_not_halt_it(self, still: World) -> None:
        still.put(3, code="out_of_stock")
        id = still.start()
        still.step(id)

        assert still.end_ready(failed_for="declined", code="no_such_card") == 1
        still.step(id, 2)

        operation = still.get(id)
        assert (operation.state, operation.sent, operation.failed) == (BulkState.RUNNING, 3, 1)

    def test_one_that_backs_off_for_the_same_reason_halts_it(self, still: World) -> None:
        still.put(3)
        id = still.start()
        still.step(id)

        still.database.run("UPDATE tasks SET attempts = 1, reason = 'declined',"
                           " run_at = now() + interval '1 h' WHERE state = 'ready'")  # fmt: skip
        still.step(id)

        operation = still.get(id)
        assert (operation.state, operation.under_way) == (BulkState.HALTED, 1)
        assert not operation.is_over  # its task is tried again by itself
        still.database.run("DELETE FROM tasks WHERE state = 'ready'")
        still.step(id)
        assert (still.get(id).done, still.get(id).is_over) == (1, True)

    def test_all_at_once_sends_everything_and_counts_what_fails_again(self, still: World) -> None:
        still.put(CHUNK[BulkKind.RETRY] + 10)
        id = still.start(all_at_once=True)

        still.step(id, 2)
        assert still.count() == 0
        still.end_ready(failed_for="declined")
        still.step(id, 2)

        operation = still.get(id)
        assert operation.state is BulkState.DONE
        assert operation.failed == operation.total == CHUNK[BulkKind.RETRY] + 10

    def test_a_rate_is_kept(self, still: World) -> None:
        still.put(50)
        id = still.start(all_at_once=True, rate=5)

        still.database.run("UPDATE bulk_operations SET paced_at = now() - interval '1 hour'")
        still.step(id)  # what could have been sent within the hour is not made up for
        assert still.get(id).sent == 5
        still.step(id)
        assert still.get(id).sent == 5
        still.database.run("UPDATE bulk_operations SET paced_at = now() - interval '0.5 s'")
        still.step(id)
        assert still.get(id).sent in (7, 8)

    def test_what_fails_later_is_not_swept_in(self, still: World) -> None:
        still.put(5)
        id = still.start(all_at_once=True)
        still.put(7)

        still.step(id, 3)

        assert still.get(id).sent == 5
        assert still.count() == 7

    def test_a_task_that_fails_again_is_not_sent_twice(self, still: World) -> None:
        still.put(5)
        id = still.start(all_at_once=True)
        still.step(id)
        still.end_ready(failed_for="other")

        still.step(id, 5)

        assert len(still.told("task.retried")) == 5
        assert still.get(id).is_over

    def test_what_has_not_failed_any_more_is_left_alone_and_listed(self, still: World) -> None:
        still.put(3)
        first, second, third = (r.subject for r in still.database.all(
            "SELECT subject FROM tasks ORDER BY run_at, name, subject"))  # fmt: skip
        id = still.start(all_at_once=True)
        still.database.run("DELETE FROM tasks WHERE subject = :s", s=first)
        still.database.run(  # it was done, and has failed anew for another reason
            "UPDATE tasks SET reason = 'defect', first_failed_at = now() WHERE subject = :s",
            s=second,
        )

        still.step(id)

        operation = still.get(id)
        assert (operation.sent, operation.skipped) == (1, 2)
        with still.database.engine("api").connect() as tx:
            left = {task.subject: task.outcome for task in bulk.not_done(tx, id)}
        assert left == {
            first: "it was done or given up meanwhile",
            second: "failed since: defect",
        }
        assert still.count("state = 'failed'") == 1
        assert third not in left

    def test_a_paused_lane_holds_its_tasks_and_no_others(self, still: World) -> None:
        still.put(3, lane="gateway")
        still.put(3, lane="driver:web")
        with still.database.engine("api").begin() as tx, history.acting(EVE):
            lanes.pause(tx, "gateway", "maintenance")
        id = still.start(all_at_once=True)

        still.step(id, 2)
        assert (still.get(id).sent, still.get(id).waits_for) == (3, "paused: gateway")
        with still.database.engine("api").begin() as tx, history.acting(EVE):
            lanes.resume(tx, "gateway")
        still.step(id)

        assert (still.get(id).sent, still.get(id).waits_for) == (6, None)

    def test_an_open_lane_gets_what_its_probes_need_and_holds_up_no_other(
        self, still: World
    ) -> None:
        still.put(3, lane="driver:web")
        still.put(3, lane="gateway")
        with still.database.owner.begin() as tx:
            breakers.open_lane(tx, "driver:web", "web", OpenCause.FAILING, "down", seconds=60)
        id = still.start()

        still.step(id)
        probes = "state = 'ready' AND lane = 'driver:web'"
        assert still.count(probes) == 1
        still.step(id, 3)
        assert still.count(probes) == 1
        assert (still.get(id).sent, still.count("state = 'ready'")) == (4, 4)
        still.database.run("DELETE FROM tasks WHERE state = 'ready' AND lane = 'gateway'")
        still.step(id, 2)
        assert still.get(id).waits_for == "open: driver:web"

        with still.database.owner.begin() as tx:  # a probe was answered
            tx.execute(text("DELETE FROM lane_breakers"))
        still.database.run("DELETE FROM tasks WHERE state = 'ready'")
        still.step(id, 3)
        assert still.get(id).sent == 6

    def test_a_filter_that_names_nothing_starts_nothing(self, still: World) -> None:
        still.put(1)
        for wrong in ({"reason": "()"}, {"plan": "x"}, {"customer": "x"}, {"driver": "x"}):
            with pytest.raises(UnknownName):
                still.start(filters=Filters(**wrong))
        assert still.database.value("SELECT count(*) FROM bulk_operations") == 0


class TestStopping:
    def test_nothing_more_is_sent_and_what_was_sent_is_followed(self, still: World) -> None:
        still.put(30)
        id = still.start()
        still.step(id)

        with still.database.engine("api").begin() as tx, history.acting(Operator("mia", "wrong")):
            bulk.stop(tx, id)
        still.step(id, 3)

        stopped = still.get(id)
        assert (stopped.state, stopped.sent, stopped.is_over) == (BulkState.STOPPED, 1, False)
        assert stopped.reason == "stopped by mia: wrong"
        still.database.run("DELETE FROM tasks WHERE state = 'ready'")
        still.step(id)
        assert (still.get(id).done, still.get(id).is_over) == (1, True)
        assert still.count() == 29

    def test_what_is_not_running_cannot_be_stopped(self, still: World) -> None:
        still.put(1)
        id = still.start()
        for _ in range(2):
            with still.database.engine("api").begin() as tx, history.acting(EVE):
                if still.get(id).state is BulkState.RUNNING:
                    bulk.stop(tx, id)
                    continue
                with pytest.raises(NoBulkOperation, match="not running"):
                    bulk.stop(tx, id)


def test_several_schedulers_send_each_task_once(still: World) -> None:
    still.put(3000)
    id = still.start(all_at_once=True)
    runners = [BulkRunner(still.database.engine("scheduler")) for _ in range(4)]
    threads = [threading.Thread(target=runner.run, daemon=True) for runner in runners]
    for thread in threads:
        thread.start()
    wait_until(lambda: still.get(id).sent == 3000, "all are sent")
    for runner in runners:
        runner.stop()
    for thread in threads:
        thread.join(10)
    assert still.database.value("SELECT max(wanted) FROM tasks") == 2
    assert len(still.told("task.retried")) == 3000


def test_counts_of_an_operation_are_those_of_its_tasks(still: World) -> None:
    still.put(40)
    id = still.start(all_at_once=True)
    still.database.run(
        "DELETE FROM tasks WHERE subject IN (SELECT subject FROM bulk_tasks WHERE number <= 5)"
    )
    still.step(id)
    still.database.run(
        "DELETE FROM tasks WHERE subject IN (SELECT subject FROM bulk_tasks"
        " WHERE number BETWEEN 6 AND 20)"
    )
    still.end_ready(failed_for="declined")
    still.step(id)

    operation = still.get(id)
    states = dict(
        tuple(row)
        for row in still.database.all("SELECT state, count(*) FROM bulk_tasks GROUP BY 1")
    )
    assert states == {"skipped": 5, "done": 15, "failed": 20}
    assert (operation.skipped, operation.done, operation.failed) == (5, 15, 20)
    assert (operation.sent, operation.state) == (35, BulkState.DONE)


def test_snapshots_of_operations_that_ended_long_ago_are_dropped(still: World) -> None:
    still.put(3)
    old, new = still.start(all_at_once=True), still.start(all_at_once=True)
    still.step(old)
    still.database.run("DELETE FROM tasks WHERE state = 'ready'")
    still.step(old)
    still.database.run(
        "UPDATE bulk_operations SET ended_at = now() - interval '31 days' WHERE id = :id", id=old
    )

    with still.database.engine("scheduler").begin() as tx:
        assert (bulk_running.forget(tx), bulk_running.forget(tx)) == (3, 0)

    assert still.get(old).done == 3
    assert still.database.value("SELECT count(*) FROM bulk_tasks WHERE bulk_id = :id", id=new) == 3


def test_an_operation_that_cannot_go_on_does_not_hold_up_others(still: World) -> None:
    still.put(3)
    broken, sound = still.start(all_at_once=True), still.start(all_at_once=True)
    still.database.run("UPDATE bulk_operations SET batch = 2000000000, sent = 2147483647"
                       " WHERE id = :id", id=broken)  # fmt: skip
    runner = BulkRunner(still.database.engine("scheduler"))

    with pytest.raises(DBAPIError):
        runner._round()

    assert still.get(sound).sent == 3


class TestGivingUp:
    def test_services_are_cancelled_and_the_money_goes_back(self, world: World) -> None:
        world.fail(order("k-1", line("site", quantity=4)), order("k-2", customer="bob"))
        with world.database.engine("api").connect() as tx:
            mine = Filters(customer="alice")
            assert [str(money) for money in groups.paid_for(tx, mine)] == ["181.78 EUR"]

        ended = world.ends(world.start(BulkKind.CANCEL, filters=mine, all_at_once=True))
        world.fleet.wait_until_idle(30)

        assert (ended.state, ended.done) == (BulkState.DONE, 4)
        assert sorted(world.states()) == ["cancelled"] * 4 + ["delivering"]
        back = world.database.value("SELECT sum(amount) FROM refunds WHERE state = 'succeeded'")
        assert back == 18178
        assert all(told["by"] == "eve" for told in world.told("task.cancelled"))
        world.clean()

    def test_what_the_customer_is_owed_is_skipped_and_says_what_to_do_instead(
        self, still: World
    ) -> None:
        still.put(1)
        still.database.run("UPDATE tasks SET name = 'refund'")
        id = still.start(BulkKind.CANCEL, all_at_once=True)

        still.step(id)

        with still.database.engine("api").connect() as tx:
            (task,) = bulk.not_done(tx, id)
        assert task.state == "skipped"
        assert "the customer is owed the refund" in str(task.outcome)
        assert still.get(id).is_over

    def test_a_scheduler_gives_up_nothing_that_no_operator_named(self, still: World) -> None:
        still.put(1)
        retry, cancel = still.start(), still.start(BulkKind.CANCEL, all_at_once=True)
        for bulk_id, number in ((retry, 1), (cancel, 2), (uuid.uuid4(), 1)):
            parameters = {"id": bulk_id, "number": number}
            with (
                pytest.raises(ProgrammingError, match="nobody asked"),
                still.database.engine("scheduler").begin() as tx,
            ):
                tx.execute(text("SELECT give_up_failed(:id, :number)"), parameters)

    def test_orders_without_a_price_and_charges_in_doubt_are_given_up(
        self, embedded: Any, database: Database
    ) -> None:
        world = World(database, embedded([{"fault": "error", "operation": "charge",
                                           "times": 100_000}]))  # fmt: skip
        world.fail(order("k-1"))
        assert database.value("SELECT name FROM tasks WHERE state = 'failed'") == "charge"
        world.mend()

        ended = world.ends(world.start(BulkKind.CANCEL, all_at_once=True))
        world.fleet.wait_until_idle(30)

        assert (ended.done, ended.total) == (1, 1)
        assert database.value("SELECT state FROM orders") == "cancelled"
        world.clean()


@pytest.mark.parametrize("role", ["orders", "billing", "reminders", "provisioning", "relay"])
def test_workers_have_no_hand_in_bulk_operations(still: World, role: str) -> None:
    with pytest.raises(Exception, match="permission denied"), \
            still.database.engine(role).begin() as tx:  # fmt: skip
        tx.execute(text("SELECT * FROM bulk_operations"))


def test_groups_are_counted_by_step_lane_reason_and_code(still: World) -> None:
    still.put(3, code="out_of_stock", lane="driver:web")
    still.put(2, code="quota", lane="driver:web")
    still.put(4)
    with still.database.engine("api").connect() as tx:
        found = groups.groups(tx)
        one = groups.groups(tx, Filters(reason="quota"))
        none = groups.groups(tx, Filters(reason="declined", driver="web", universe="web"))
    assert [(g.tasks, g.driver, g.reason, g.code) for g in found] == [
        (4, None, "declined", None),
        (3, "web", "declined", "out_of_stock"),
        (2, "web", "declined", "quota"),
    ]
    assert [g.tasks for g in one] == [2]
    assert none == []


def test_failed_tasks_of_a_plan_are_found_by_what_they_are_about(world: World) -> None:
    world.fail(order("k-1", line("site"), line("vm")), order("k-2", line("vm"), customer="bob"))
    with world.database.engine("api").connect() as tx:
        by_plan = {
            plan: failed.select(tx, Filters(plan=plan)).total for plan in ("site", "vm", "server")
        }
    assert by_plan == {"site": 1, "vm": 2, "server": 0}


def test_what_failed_after_a_moment_is_left_out(still: World) -> None:
    still.put(3)
    asked_at = still.database.value("SELECT clock_timestamp()")
    still.put(1)

    operation = still.get(still.start(kind=BulkKind.CANCEL, until=asked_at))

    assert operation.total == 3


def test_rate_that_is_slower_than_anybody_waits_is_refused(still: World) -> None:
    still.put(1)
    with pytest.raises(ValueError, match=r"at least 0\.001"):
        still.start(rate=1e-42)


def test_operation_that_its_rate_holds_back_says_so(still: World) -> None:
    still.put(5)
    slow = still.start(rate=0.01, all_at_once=True)
    still.step(slow)
    assert still.get(slow).waits_for == "its rate of 0.01/s"


def test_configuration_of_what_was_delivered_is_changed_by_nobody(world: World) -> None:
    answers = world.database.place(order("k-1", line("vm")))
    assert [answer.verdict for answer in answers] == ["accepted"]
    world.mend()
    world.fleet.wait_until_idle(30)
    for engine in (world.database.engine("api"), world.database.owner):
        with pytest.raises(IntegrityError, match="does not change"), engine.begin() as tx:
            tx.execute(text('UPDATE services SET configuration = \'{"size": "xxl"}\''))


def test_orders_are_found_by_the_plan_of_their_lines(still: World) -> None:
    still.database.place(order("k-1", line("vm")), order("k-2", line("site"), customer="bob"))
    still.database.run("UPDATE tasks SET state = 'failed', batched = false, reason = 'plan_gone'")
    still.database.run("DELETE FROM batches")
    assert still.get(still.start(filters=Filters(plan="vm"))).total == 1
