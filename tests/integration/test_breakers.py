"""Lanes that open while their far side fails and close by themselves; limits of the whole fleet."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from autorenew.cli import main
from producers import ledger
from producers.control import breakers, lanes, limits
from producers.control.limits import Limit, WrongLimit
from producers.ledger import dispatching
from producers.steps import CONVERGE, driver_place
from schemas.settings import BreakerSettings, Settings
from schemas.values import OpenCause
from tests.conftest import Database
from tests.integration.test_billing import assert_clean
from tests.integration.test_lanes import history
from tests.support.given import line, order, wait_until
from workers.outside.health import Breakers, Health
from workers.runtime.retries import policy_for

QUICK = {"failures": 5, "seconds": 0.2, "cap_seconds": 1.0}
DOWN = {"fault": "error", "target": "infrastructure", "times": 1_000_000, "plan": "site"}


@pytest.fixture
def cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    url = database.engine("api").url.set(drivername="postgresql")
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["lanes", *words])

    return run


def repair(fleet: Any) -> None:
    fleet.simulator.simulator.faults.clear()


def opened(database: Database) -> list[str]:
    return [row.lane for row in database.all("SELECT lane FROM lane_breakers ORDER BY lane")]


def delivered(database: Database, plan: str) -> int:
    query = "SELECT count(*) FROM services WHERE plan = :plan AND state = 'active'"
    return int(database.value(query, plan=plan))


def test_lane_of_a_driver_that_fails_opens_and_closes_again_and_nothing_fails(
    embedded: Any, database: Database
) -> None:
    fleet = embedded([DOWN], breaker=QUICK, retry_attempts=6, call_seconds=5.0)
    database.place(*(order(f"site-{n}", line("site")) for n in range(30)))
    wait_until(lambda: opened(database) == ["driver:web"], "the lane opens", 20)
    database.place(*(order(f"vm-{n}", line("vm")) for n in range(20)))
    wait_until(lambda: delivered(database, "vm") == 20, "the other driver works on", 20)
    wait_until(
        lambda: int(database.value("SELECT coalesce(max(probes), 0) FROM lane_breakers")) >= 2,
        "probes fail", 20,
    )  # fmt: skip
    attempts = database.value("SELECT max(total_attempts) FROM tasks WHERE name = 'converge'")
    assert database.value("SELECT count(*) FROM tasks WHERE state = 'failed'") == 0

    repair(fleet)
    wait_until(lambda: delivered(database, "site") == 30, "all are delivered", 30)

    assert opened(database) == []
    assert attempts < 6  # however often it was probed
    names = [name for name, _ in history(database)]
    assert names == ["lane.opened", "lane.closed"]
    assert_clean(fleet, database)


def test_gateway_that_is_away_uses_up_no_attempts_of_orders(
    embedded: Any, database: Database
) -> None:
    down = {"fault": "error", "target": "gateway", "times": 1_000_000}
    fleet = embedded([down], breaker=QUICK, call_seconds=5.0)
    database.place(*(order(f"k-{n}", customer=f"c-{n}") for n in range(20)))
    wait_until(lambda: opened(database) == ["gateway"], "the lane opens", 20)
    time.sleep(1.0)
    assert database.value("SELECT count(*) FROM tasks WHERE state = 'failed'") == 0
    repair(fleet)
    wait_until(lambda: delivered(database, "site") == 20, "all are delivered", 30)
    assert_clean(fleet, database)


def test_one_service_that_always_fails_holds_up_no_other(embedded: Any, database: Database) -> None:
    bad = DOWN | {"customer": "mallory"}
    fleet = embedded([bad], breaker=QUICK, retry_attempts=20, retry_cap_seconds=0.05)
    database.place(order("bad", line("site"), customer="mallory"))
    wait_until(
        lambda: database.value("SELECT count(*) FROM tasks WHERE state = 'failed'") == 1,
        "it fails", 30,
    )  # fmt: skip
    database.place(*(order(f"k-{n}", line("site"), customer=f"c-{n}") for n in range(10)))
    wait_until(lambda: delivered(database, "site") == 10, "the others are delivered", 20)
    assert history(database) == []
    assert fleet


class OpenLane:
    """A lane that is open, with tasks that wait in it."""

    def __init__(self, database: Database, tasks: int) -> None:
        self.database = database
        self.subjects = sorted(uuid.uuid4() for _ in range(tasks))
        place = driver_place("web", "web")
        with database.owner.begin() as tx:
            ledger.enqueue(tx, CONVERGE, [(subject, place) for subject in self.subjects])
            breakers.open_lane(tx, "driver:web", "web", OpenCause.FAILING, "HTTP 500", seconds=0.0)

    def dispatch(self) -> list[Any]:
        with self.database.engine("relay").begin() as tx:
            return dispatching.dispatch(tx, batch=lambda _: 100, cap=1000, rescue_seconds=60)

    def claim(self, batch: Any) -> Any:
        with self.database.engine("provisioning").begin() as tx:
            return ledger.claim(tx, CONVERGE, "web", [batch], seconds=60)


def test_an_open_lane_lets_out_one_task_at_a_time(database: Database) -> None:
    lane = OpenLane(database, 7)
    (probe,) = lane.dispatch()
    assert probe.size == 1
    assert lane.dispatch() == []
    claim = lane.claim(probe.batch)
    assert (len(claim.tasks), claim.is_probe, claim.lane) == (1, True, "driver:web")

    with database.engine("provisioning").begin() as tx:
        breakers.open_longer(tx, "driver:web", "HTTP 502", first=0.0, cap=1.0, asked=None)
        ledger.release(tx, claim, reason="driver_unavailable", delay=0.0)
    (again,) = lane.dispatch()
    other = lane.claim(again.batch)
    assert other.subjects != claim.subjects  # one that always fails does not keep it open
    with database.engine("provisioning").begin() as tx:
        assert breakers.close_lane(tx, "driver:web")
    assert sum(message.size for message in lane.dispatch()) == 6


def test_what_was_handed_over_before_a_lane_opened_is_not_claimed(database: Database) -> None:
    place = driver_place("web", "web")
    with database.owner.begin() as tx:
        ledger.enqueue(tx, CONVERGE, [(uuid.uuid4(), place) for _ in range(3)])
    with database.engine("relay").begin() as tx:
        (message,) = dispatching.dispatch(tx, batch=lambda _: 100, cap=1000, rescue_seconds=60)
    with database.engine("provisioning").begin() as tx:
        breakers.open_lane(tx, "driver:web", "web", OpenCause.FAILING, "no", seconds=60.0)
        assert not ledger.claim(tx, CONVERGE, "web", [message.batch], seconds=60).tasks
        breakers.close_lane(tx, "driver:web")
    with database.engine("relay").begin() as tx:
        dispatching.rescue(tx)
        (message,) = dispatching.dispatch(tx, batch=lambda _: 100, cap=1000, rescue_seconds=60)
        assert message.size == 3


def test_far_side_that_asks_for_time_gets_it(database: Database) -> None:
    with database.engine("billing").begin() as tx:
        breakers.open_lane(tx, "gateway", "billing", OpenCause.ASKED, "HTTP 429", seconds=600.0)
        breakers.open_longer(tx, "gateway", "HTTP 429", first=5.0, cap=60.0, asked=900.0)
    wait = "SELECT extract(epoch FROM probe_at - now())::float8 FROM lane_breakers"
    assert 890 < float(database.value(wait)) <= 900


def seconds_to_probe(database: Database) -> float:
    wait = "SELECT extract(epoch FROM probe_at - clock_timestamp())::float8 FROM lane_breakers"
    return float(database.value(wait))


def test_lane_that_is_open_already_waits_as_long_as_its_far_side_asks(database: Database) -> None:
    with database.engine("billing").begin() as tx:
        assert breakers.open_lane(tx, "gateway", "billing", OpenCause.FAILING, "no", seconds=5.0)
    for asked in (600.0, 60.0):  # of two workers, the second has seen a shorter one
        with database.engine("billing").begin() as tx:
            assert not breakers.open_lane(
                tx, "gateway", "billing", OpenCause.ASKED, "HTTP 429", seconds=asked
            )
    assert 590 < seconds_to_probe(database) <= 600
    assert database.value("SELECT cause FROM lane_breakers") == "asked"


def test_worker_that_opened_a_lane_calls_again_once_a_person_closed_it(
    database: Database,
) -> None:
    """Given a far side that asked for an hour, and a worker that has seen that
    When an operator closes the lane
    Then what this worker claims next is called, and not put back for an hour.
    """
    ours = Breakers(database.engine("provisioning"), BreakerSettings())
    lane = OpenLane(database, 3)
    with database.engine("api").begin() as tx:
        breakers.close_lane(tx, "driver:web")
    (message,) = lane.dispatch()
    claim = lane.claim(message.batch)
    asking = Health(False, "HTTP 429", retry_after=3600.0)
    ours.act(ours.observe(claim, [(claim.subjects[0], asking)]))
    assert opened(database) == ["driver:web"]
    assert ours.is_open("driver:web")
    with database.engine("provisioning").begin() as tx:
        ledger.release(tx, claim, reason="interrupted")

    with database.engine("api").begin() as tx:
        breakers.close_lane(tx, "driver:web")
    (message,) = lane.dispatch()
    since = time.monotonic()
    ours.claimed(lane.claim(message.batch), since)
    assert not ours.is_open("driver:web")


def test_probes_go_to_every_queue_of_a_lane(database: Database) -> None:
    """Nobody may be at work on one of them: its tasks would keep the lane open for ever."""
    OpenLane(database, 50)
    with database.owner.begin() as tx:
        place = driver_place("cloud", "web")
        ledger.enqueue(tx, CONVERGE, [(uuid.uuid4(), place) for _ in range(50)])
        tx.execute(text("UPDATE tasks SET run_at = run_at - interval '1 hour' WHERE queue = 'web'"))
    queues = set()
    for _ in range(40):
        with database.engine("relay").begin() as tx:
            (probe,) = dispatching.dispatch(tx, batch=lambda _: 100, cap=1000, rescue_seconds=60)
        queues.add(probe.queue)
        with database.owner.begin() as tx:
            breakers.probe_now(tx, "driver:web")
    assert queues == {"web", "cloud"}


def test_lane_that_opens_leaves_its_room_in_the_queue_to_others(database: Database) -> None:
    place = driver_place("web", "web")
    with database.owner.begin() as tx:
        ledger.enqueue(tx, CONVERGE, [(uuid.uuid4(), place) for _ in range(20)])

    def dispatch() -> dict[str, int]:
        with database.engine("relay").begin() as tx:
            found = dispatching.dispatch(tx, batch=lambda _: 100, cap=10, rescue_seconds=600)
        return {message.lane: message.size for message in found}

    assert dispatch() == {"driver:web": 10}
    with database.owner.begin() as tx:
        other = driver_place("web", "hosted")
        ledger.enqueue(tx, CONVERGE, [(uuid.uuid4(), other) for _ in range(20)])
    assert dispatch() == {}
    with database.engine("provisioning").begin() as tx:
        breakers.open_lane(tx, "driver:web", "web", OpenCause.FAILING, "no", seconds=60.0)
    assert dispatch() == {"driver:hosted": 10}


def test_lane_that_is_paused_leaves_its_room_in_the_queue_to_others(database: Database) -> None:
    lane = Limited(database, Limit(at_once=500))
    assert lane.sent() == 100
    with database.owner.begin() as tx:
        other = driver_place("web", "hosted")
        ledger.enqueue(tx, CONVERGE, [(uuid.uuid4(), other) for _ in range(5)])
    with database.engine("api").begin() as tx:
        lanes.pause(tx, "driver:web", "maintenance")
    with database.engine("relay").begin() as tx:
        found = dispatching.dispatch(tx, batch=lambda _: 100, cap=100, rescue_seconds=600)
    assert {message.lane: message.size for message in found} == {"driver:hosted": 5}


def test_clock_that_was_set_back_holds_up_no_limited_lane(database: Database) -> None:
    lane = Limited(database, Limit(per_second=50.0, burst=5))
    assert lane.sent() == 5
    database.run("UPDATE lane_limits SET filled_at = now() + interval '1 hour'")
    assert lane.sent() == 0
    with database.engine("relay").begin() as tx:
        dispatching.rescue(tx)
    wait_until(lambda: lane.sent() > 0, "tokens come again")


def test_clock_that_was_set_back_holds_up_no_probe(database: Database) -> None:
    lane = OpenLane(database, 3)
    database.run(
        "UPDATE lane_breakers SET opened_at = now() + interval '1 hour',"
        " probe_at = now() + interval '1 hour'"
    )
    with database.engine("relay").begin() as tx:
        dispatching.rescue(tx)
    assert lane.dispatch() == []
    assert seconds_to_probe(database) <= dispatching.PROBE_SECONDS


def test_lane_of_a_driver_that_is_gone_is_shown_while_it_is_open_and_can_be_closed(
    cli: Callable[..., Result],
    database: Database,
) -> None:
    with database.engine("provisioning").begin() as tx:
        breakers.open_lane(tx, "driver:old", "web", OpenCause.FAILING, "HTTP 500", seconds=60.0)
    database.run("INSERT INTO lane_limits (lane, at_once) VALUES ('driver:older', 1)")
    shown = [json.loads(row)["lane"] for row in cli("list", "--json").stdout.splitlines()]
    assert {"driver:old", "driver:older"} <= set(shown)
    assert cli("show", "driver:old").exit_code == 0
    assert "none waits now" in cli("try", "driver:old").stdout
    assert cli("close", "driver:old").exit_code == 0
    assert cli("limit", "driver:older", "--none").exit_code == 0
    assert cli("show", "driver:old").exit_code == 2


def test_tasks_of_a_driver_that_is_gone_wait_for_a_person_and_not_for_its_open_lane(
    embedded: Any, database: Database
) -> None:
    fleet = embedded([], breaker=QUICK)
    with database.engine("provisioning").begin() as tx:
        breakers.open_lane(tx, "driver:gone", "web", OpenCause.FAILING, "HTTP 500", seconds=0.1)
    database.run("UPDATE plans SET driver = 'gone' WHERE driver = 'web'")
    database.place(*(order(f"k-{n}", line("site"), customer=f"c-{n}") for n in range(5)))
    failed = "SELECT count(*) FROM tasks WHERE state = 'failed' AND reason = 'no_such_driver'"
    wait_until(lambda: database.value(failed) == 5, "all are shown to a person", 20)
    assert fleet


def test_probe_of_a_lane_that_is_paused_waits_for_its_resumption(
    cli: Callable[..., Result], database: Database
) -> None:
    lane = OpenLane(database, 3)
    with database.engine("api").begin() as tx:
        lanes.pause(tx, "driver:web", "maintenance")
    assert lane.dispatch() == []
    assert "is paused, too" in cli("try", "driver:web").stdout
    with database.engine("api").begin() as tx:
        lanes.resume(tx, "driver:web")
    assert [message.size for message in lane.dispatch()] == [1]


def test_probe_whose_process_is_killed_is_followed_by_another_and_counts_a_start(
    database: Database,
) -> None:
    lane = OpenLane(database, 3)
    (probe,) = lane.dispatch()
    claim = lane.claim(probe.batch)
    assert lane.dispatch() == []
    database.run("UPDATE lane_breakers SET probe_at = now()")
    database.run("UPDATE batches SET until = now() - interval '1 s' WHERE state = 'leased'")
    with database.engine("relay").begin() as tx:
        assert dispatching.rescue(tx) == (0, 1)
    (another,) = lane.dispatch()
    assert lane.claim(another.batch).subjects != claim.subjects


def test_probe_that_the_broker_lost_is_sent_again_soon_if_it_is_the_only_task(
    database: Database,
) -> None:
    lane = OpenLane(database, 1)
    (lost,) = lane.dispatch()
    database.run("UPDATE batches SET state = 'ready', until = NULL, dispatches = 7")
    database.run("UPDATE lane_breakers SET probe_at = now()")
    (lost,) = lane.dispatch()
    wait = "SELECT extract(epoch FROM until - now())::float8 FROM batches WHERE id = :id"
    assert float(database.value(wait, id=lost.batch)) <= dispatching.PROBE_SECONDS


def test_two_workers_that_open_a_lane_at_once_open_it_once(database: Database) -> None:
    def open_it(barrier: threading.Barrier) -> bool:
        with database.engine("provisioning").begin() as tx:
            barrier.wait()
            return breakers.open_lane(tx, "driver:web", "web", OpenCause.FAILING, "no", seconds=1.0)

    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(open_it, barrier) for _ in range(4)]
    assert sorted(one.result() for one in done) == [False, False, False, True]
    assert [name for name, _ in history(database)] == ["lane.opened"]


def test_worker_opens_no_lane_of_another_queue(database: Database) -> None:
    with (
        pytest.raises(Exception, match="row-level security"),
        database.engine("provisioning").begin() as tx,
    ):
        breakers.open_lane(tx, "gateway", "billing", OpenCause.FAILING, "no", seconds=1.0)


class Limited:
    """Tasks in a lane with a limit, dispatched as a relay does."""

    def __init__(self, database: Database, limit: Limit, tasks: int = 100) -> None:
        self.database = database
        place = driver_place("web", "web")
        with database.owner.begin() as tx:
            ledger.enqueue(tx, CONVERGE, [(uuid.uuid4(), place) for _ in range(tasks)])
        with database.engine("api").begin() as tx:
            limits.set_limit(tx, "driver:web", limit)

    def dispatch(self) -> list[Any]:
        with self.database.engine("relay").begin() as tx:
            return dispatching.dispatch(tx, batch=lambda _: 100, cap=1000, rescue_seconds=60)

    def sent(self) -> int:
        return sum(message.size for message in self.dispatch())


def test_no_more_tasks_of_a_lane_are_under_way_than_its_limit(database: Database) -> None:
    lane = Limited(database, Limit(at_once=8))
    (message,) = lane.dispatch()
    assert message.size == 8
    assert lane.sent() == 0
    with database.engine("provisioning").begin() as tx:
        claim = ledger.claim(tx, CONVERGE, "web", [message.batch], seconds=60)
    assert lane.sent() == 0
    with database.engine("provisioning").begin() as tx:
        ledger.finish(tx, claim.subset(claim.subjects[:3]), ledger.Outcome(claim.subjects[:3]))
    assert lane.sent() == 3


def test_tasks_of_a_lane_go_out_at_its_rate(database: Database) -> None:
    lane = Limited(database, Limit(per_second=20.0, burst=5))
    began = time.monotonic()
    assert lane.sent() == 5
    sent = 5
    while time.monotonic() - began < 1.5:
        sent += lane.sent()
        time.sleep(0.01)
    passed = time.monotonic() - began
    # Less on a busy machine, where a relay looks seldom; never more.
    assert 5 + 20 * passed / 2 <= sent <= 5 + 20 * passed + 1


def test_lane_on_two_queues_has_one_limit(database: Database) -> None:
    lane = Limited(database, Limit(at_once=10))
    with database.owner.begin() as tx:
        place = driver_place("cloud", "web")
        ledger.enqueue(tx, CONVERGE, [(uuid.uuid4(), place) for _ in range(100)])
    assert lane.sent() == 10


def test_limit_of_one_lane_is_none_of_another(database: Database) -> None:
    lane = Limited(database, Limit(at_once=1))
    with database.owner.begin() as tx:
        place = driver_place("cloud", "cloud")
        ledger.enqueue(tx, CONVERGE, [(uuid.uuid4(), place) for _ in range(50)])
    assert {message.lane: message.size for message in lane.dispatch()} == {
        "driver:web": 1, "driver:cloud": 50,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{}, {"at_once": 0}, {"per_second": 0.0, "burst": 1}, {"per_second": 1.0},
     {"at_once": 1, "burst": 3}, {"per_second": float("nan"), "burst": 1},
     {"at_once": 2**31}, {"per_second": 1.0, "burst": 2**31}],
)  # fmt: skip
def test_limit_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongLimit):
        Limit(**wrong)


def test_limit_is_set_shown_and_lifted_by_command(
    cli: Callable[..., Result],
    database: Database,
) -> None:
    database.run("INSERT INTO routes (queue, name, lane) VALUES ('web', 'converge', 'driver:web')")
    assert cli("limit", "driver:web").exit_code == 2
    said = cli("limit", "driver:web", "--at-once", "50", "--per-second", "20", "--by", "alice")
    assert (said.exit_code, said.stdout) == (0, "driver:web: 50 at once; 20/s, burst 20\n")
    lanes = [json.loads(one)["lane"] for one in cli("list", "--json").stdout.splitlines()]
    assert "destructive" in lanes
    (web,) = [
        one for one in map(json.loads, cli("list", "--json").stdout.splitlines())
        if one["lane"] == "driver:web"
    ]  # fmt: skip
    assert web["limit"] == {"at_once": 50, "per_second": 20.0, "burst": 20}
    assert cli("limit", "driver:web", "--none").stdout == "driver:web has no limit\n"
    assert cli("limit", "nosuch", "--at-once", "1").exit_code == 2
    assert [name for name, _ in history(database)] == ["lane.limited", "lane.unlimited"]


@pytest.mark.parametrize(
    "words",
    [("--per-second", "nan"), ("--per-second", "inf"), ("--per-second", "1e300"),
     ("--per-second", "-1"), ("--at-once", "99999999999"),
     ("--per-second", "1", "--burst", "99999999999")],
)  # fmt: skip
def test_limit_that_cannot_be_kept_is_one_line_and_exit_code_2(
    cli: Callable[..., Result], database: Database, words: tuple[str, ...]
) -> None:
    said = cli("limit", "gateway", *words)
    assert (said.exit_code, said.exception.__class__) == (2, SystemExit)
    assert database.value("SELECT count(*) FROM lane_limits") == 0


def test_open_lane_is_shown_tried_and_closed_by_command(
    cli: Callable[..., Result],
    database: Database,
) -> None:
    with database.engine("billing").begin() as tx:
        breakers.open_lane(tx, "gateway", "billing", OpenCause.FAILING, "HTTP 503", seconds=60.0)
    assert "HTTP 503; 0 probes failed" in cli("list").stdout.replace("\n", " ")
    assert cli("try", "gateway", "--by", "alice").exit_code == 0
    assert float(database.value(
        "SELECT extract(epoch FROM probe_at - now())::float8 FROM lane_breakers"
    )) <= 0  # fmt: skip
    with database.engine("billing").begin() as tx:
        breakers.probe_now(tx, "gateway")  # as a worker does, whose probe needed no call
    tried = [detail for name, detail in history(database) if name == "lane.tried"]
    assert [detail["by"] for detail in tried] == ["alice"]
    assert cli("close", "gateway", "--by", "alice", "--because", "it works").exit_code == 0
    assert cli("close", "gateway").exit_code == 1
    assert cli("try", "gateway").exit_code == 1
    assert history(database)[-1][1]["by"] == "alice"


def test_policy_of_a_reason_goes_before_that_of_its_kind() -> None:
    settings = Settings(
        retries={"driver": {"attempts": 7}, "driver_unknown": {"attempts": 2}}  # type: ignore[dict-item]
    )
    policy = policy_for("driver", settings)
    assert policy.attempts == 7
    assert policy.of_reasons["driver_unknown"].attempts == 2
