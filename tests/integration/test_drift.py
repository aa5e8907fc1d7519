"""What a driver says exists is compared with what should: differences are told, and mended."""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client import REGISTRY

from autorenew.cli import main
from monitoring.audit import COMPARISONS, Books
from producers import ledger
from producers.control import breakers, suspending
from producers.scheduler.reconciling import Reconciliations, subject_of
from producers.steps import RECONCILE, driver_place
from schemas.catalogue.store import CatalogueCache
from schemas.values import OpenCause
from tests.integration.test_catching_up import arrives
from tests.integration.test_importing import row
from tests.support.given import line, order, wait_until
from workers.provisioning.drivers.http import HttpDriver


@pytest.fixture
def world(life: Any) -> Any:
    """A fleet that mends all that it may, with three sites, a suspended one and a server."""
    world = life(reconcile_mends=["missing", "state", "paid_until"])
    world.order(line("site", quantity=3), line("server"))
    world.send(order("k-2", line("site"), customer="bob"))
    (theirs,) = (s for s in world.services() if s.customer_id == "bob")
    with world.fleet.engine("api").begin() as tx:
        catalogue, now = CatalogueCache().current(tx), world.fleet.clock.now()
        suspending.suspend(tx, [theirs.id], "abuse", catalogue, now)
    world.fleet.settle(30)
    settle_down(world)
    return world


def settle_down(world: Any) -> None:
    """As if nothing had been done for a while."""
    world.database.run(
        "UPDATE operations SET started_at = started_at - interval '20 minutes',"
        " ended_at = ended_at - interval '20 minutes'"
    )


def far(world: Any, statement: str, *values: Any) -> None:
    world.fleet.simulator.simulator.store._db.execute(statement, values)


def resources(world: Any) -> list[tuple[str, str, str]]:
    rows = world.fleet.simulator.simulator.store.resources(0, 100)
    return sorted(((r["service_id"], r["state"], r["paid_until"]) for r in rows), key=str)


def look(world: Any, driver: str = "web", universe: str = "web") -> Any:
    """As the scheduler does; returns what came of it."""
    with world.fleet.owner.begin() as tx:
        place = driver_place(universe, driver)
        ledger.enqueue(tx, RECONCILE, [(subject_of(driver), place)])
    world.fleet.settle(30)
    (row,) = world.database.all("SELECT * FROM reconciliations WHERE driver = :d", d=driver)
    return row


def sites(world: Any) -> list[Any]:
    return [s for s in world.services() if s.plan == "site" and s.customer_id == "alice"]


Run = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Run]:
    def of(world: Any) -> Run:
        return partial(run, world)

    def run(world: Any, *arguments: str) -> Result:
        database = world.database
        url = database._postgres.role_url(database.name, "provisioning")
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url)
        urls = world.fleet.settings.driver_urls
        monkeypatch.setenv("AUTORENEW_DRIVER_URLS", json.dumps(urls))
        return CliRunner().invoke(main, ["reconcile", "infrastructure", *arguments])

    return of


@pytest.fixture
def cli(world: Any, command: Callable[[Any], Run]) -> Run:
    return command(world)


def taken_over(world: Any, monkeypatch: pytest.MonkeyPatch, *listed: str) -> Any:
    """A service that was taken over as ``r-1``; the driver's list has these beside what is known
    there by our ids, under their own names only."""
    store = world.fleet.simulator.simulator.store
    whole = store.resources

    def resources(after: int, limit: int, driver: str | None = None) -> Any:
        strange = [
            {"number": 10**6 + n, "service_id": None, "resource_id": name, "state": "active",
             "paid_until": None}
            for n, name in enumerate(listed, 1)
        ]  # fmt: skip
        shown = strange if driver == "web" else []
        return [*whole(after, limit, driver), *(row for row in shown if row["number"] > after)]

    monkeypatch.setattr(store, "resources", resources)
    expires = (world.fleet.clock.now() + timedelta(days=20)).date().isoformat()
    arrives(world, row(anchor=None, expires_on=expires))
    world.fleet.settle(30)
    return world.service()


def tried(world: Any, service: Any, state: str, reason: str | None = None) -> None:
    """As if an operation on it had been begun, and had ended so, some time ago."""
    world.database.run(
        "INSERT INTO operations (key, service_id, kind, generation, paid_until, state, reason,"
        " started_at, ended_at) VALUES (gen_random_uuid(), :id, 'extend', 1, '2027-01-01', :state,"
        " :reason, now() - interval '30 minutes', CASE WHEN :state IN ('done', 'failed') THEN"
        " now() - interval '30 minutes' END)",
        id=service.id, state=state, reason=reason,
    )  # fmt: skip


def test_a_fleet_at_rest_differs_in_nothing(world: Any, cli: Any) -> None:
    found = look(world)

    assert (found.outcome, found.differences) == ("clean", {"mended": 0})
    result = cli()
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "differences between drivers' books and ours: none\n"


def test_what_a_driver_lost_changed_and_cut_short_is_converged_again(world: Any) -> None:
    before = resources(world)
    events = len(world.happened("service.%"))
    lost, changed, short = sites(world)
    (held,) = (s for s in world.services() if s.state == "suspended")
    far(world, "UPDATE resources SET state = 'gone' WHERE service_id = ?", str(lost.id))
    far(world, "UPDATE resources SET state = 'suspended' WHERE service_id = ?", str(changed.id))
    far(world, "UPDATE resources SET state = 'active' WHERE service_id = ?", str(held.id))
    far(world, "UPDATE resources SET paid_until = '2020-01-01' WHERE service_id = ?", str(short.id))
    assert resources(world) != before

    found = look(world)

    assert found.outcome == "differences"
    assert found.differences == {"missing": 1, "state": 2, "paid_until": 1, "mended": 4}
    assert resources(world) == before
    after = {s.id: s for s in world.services()}
    for service in (lost, changed, short, held):
        assert after[service.id].generation == service.generation + 1
        same = ("state", "confirmed", "confirmed_until", "suspended_at", "held_at", "expires_at")
        for name in same:
            assert getattr(after[service.id], name) == getattr(service, name)
    assert after[lost.id].resource_id not in (None, lost.resource_id)
    told = world.happened("resource.differs")
    assert sorted(detail["difference"] for _, detail in told) == [
        "missing", "paid_until", "state", "state",
    ]  # fmt: skip
    assert {"was": "active", "seen": "absent"}.items() <= told[0][1].items() or len(told) == 4
    assert len(world.happened("service.%")) == events + 1  # the changed one was resumed
    world.clean()
    settle_down(world)
    assert look(world).outcome == "clean"


def test_a_far_side_that_forgot_our_generations_is_converged_all_the_same(world: Any) -> None:
    (lost, *_) = sites(world)
    far(world, "DELETE FROM resources WHERE service_id = ?", str(lost.id))
    far(world, "DELETE FROM generations WHERE service_id = ?", str(lost.id))

    assert look(world).differences == {"missing": 1, "mended": 1}
    assert str(lost.id) in {service for service, _, _ in resources(world)}
    world.clean()


def test_a_far_side_that_is_ahead_of_our_generations_is_converged_all_the_same(world: Any) -> None:
    (changed, *_) = sites(world)
    far(world, "UPDATE resources SET state = 'suspended' WHERE service_id = ?", str(changed.id))
    far(world, "UPDATE generations SET generation = 40 WHERE service_id = ?", str(changed.id))

    assert look(world).differences == {"state": 1, "mended": 1}
    after = {s.id: s for s in world.services()}
    assert after[changed.id].generation == 41
    world.clean()


def test_resource_that_ended_ahead_of_our_generations_is_created_anew(world: Any) -> None:
    (lost, *_) = sites(world)
    far(world, "UPDATE resources SET state = 'gone' WHERE service_id = ?", str(lost.id))
    far(world, "UPDATE generations SET generation = 40 WHERE service_id = ?", str(lost.id))

    assert look(world).differences == {"missing": 1, "mended": 1}
    after = {s.id: s for s in world.services()}
    assert after[lost.id].generation == 41
    assert str(lost.id) in {s for s, state, _ in resources(world) if state == "active"}
    world.clean()


def test_an_orphan_is_told_and_ended_only_if_a_person_names_it(world: Any, cli: Any) -> None:
    (known, *_) = sites(world)
    insert = (
        "INSERT INTO resources (driver, service_id, resource_id, state) VALUES ('web', ?, ?, ?)"
    )
    other = "00000000-0000-4000-8000-000000000001"
    far(world, insert, other, "stray", "active")
    far(world, "INSERT INTO generations VALUES (?, 7)", other)
    far(world, insert, str(known.id), "twin", "active")

    assert look(world).differences == {"orphan": 2, "mended": 0}
    told = [json.loads(row) for row in cli("--driver", "web", "--json").stdout.splitlines()]
    assert {row["resource"] for row in told} == {"stray", "twin"}
    assert cli("--mend").exit_code == 1
    assert (other, "active", None) in resources(world)

    result = cli(
        "--driver", "web", "--terminate", "stray", "--terminate", "twin", "--because", "nobody's"
    )
    assert result.exit_code == 1
    assert f"twin was not ended: a second resource of service {known.id}" in result.stderr
    assert "stray" not in result.stderr
    assert other not in {service for service, _, _ in resources(world)}
    ((_, detail),) = world.happened("lane.orphan_ended")
    assert (detail["resource"], detail["answer"]) == ("stray", "done")
    assert detail["because"] == "nobody's"


def test_what_outlived_its_service_is_ended_by_name(world: Any, cli: Any) -> None:
    (ended, *_) = sites(world)
    world.database.run(
        "UPDATE services SET state = 'terminated', desired = 'absent', confirmed = 'absent',"
        " next_step = NULL, next_step_at = NULL WHERE id = :id",
        id=ended.id,
    )

    assert cli("--mend").exit_code == 1
    assert str(ended.id) in {service for service, _, _ in resources(world)}
    assert (
        cli("--driver", "web", "--terminate", ended.resource_id, "--because", "left over").exit_code
        == 0
    )
    world.fleet.settle(30)
    assert str(ended.id) not in {service for service, _, _ in resources(world)}
    ((_, detail),) = world.happened("resource.differs")
    assert (detail["difference"], detail["because"]) == ("orphan", "left over")
    after = {s.id: s for s in world.services()}[ended.id]
    assert (after.state, after.confirmed) == ("terminated", "absent")


def test_a_person_sees_and_mends(world: Any, cli: Any) -> None:
    (lost, *_) = sites(world)
    far(world, "UPDATE resources SET state = 'gone' WHERE service_id = ?", str(lost.id))

    result = cli("--json")
    assert result.exit_code == 1
    (row,) = map(json.loads, result.stdout.splitlines())
    assert (row["driver"], row["difference"], row["service"]) == ("web", "missing", str(lost.id))
    assert cli("--mend", "--because", "lost in the fire").exit_code == 0
    world.fleet.settle(30)
    ((_, detail),) = world.happened("resource.differs")
    assert detail["because"] == "lost in the fire"
    assert cli().exit_code == 0
    world.clean()


def test_what_is_not_to_be_mended_is_only_told(life: Any) -> None:
    world = life()
    world.order(line("site"))
    settle_down(world)
    far(world, "UPDATE resources SET state = 'gone'")

    assert look(world).differences == {"missing": 1, "mended": 0}
    assert resources(world) == []


def test_a_driver_that_says_that_all_is_gone_is_not_believed(world: Any, cli: Any) -> None:
    world.send(order("k-3", line("site", quantity=10), customer="carol"))
    settle_down(world)
    far(world, "UPDATE resources SET state = 'gone'")
    generations = [s.generation for s in world.services()]

    found = look(world)

    assert (found.outcome, found.differences) == ("too_many", {"missing": 14, "mended": 0})
    assert [s.generation for s in world.services()] == generations
    assert resources(world) == []
    result = cli("--driver", "web", "--mend")
    assert result.exit_code == 2
    assert "driver web: too_many: 14 of 14 services differ" in result.stderr
    assert [s.generation for s in world.services()] == generations


def test_a_book_that_cannot_be_read_changes_nothing_and_is_told(
    world: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.responses import JSONResponse

    simulator = world.fleet.simulator.simulator

    def broken(*_: Any) -> JSONResponse:
        raise RuntimeError("the list is broken")

    monkeypatch.setattr(simulator.store, "resources", broken)
    found = look(world)

    assert (found.outcome, found.differences) == ("unavailable", {"mended": 0})
    (task,) = world.database.all("SELECT * FROM tasks WHERE name = 'reconcile'")
    assert (task.state, task.reason) == ("failed", "book_unavailable")
    result = cli("--driver", "web")
    assert result.exit_code == 2
    assert "driver web: unavailable" in result.stderr


def test_what_is_under_way_or_was_just_now_is_no_difference(world: Any) -> None:
    lost, busy, fresh = sites(world)
    for service in (lost, busy, fresh):
        far(world, "UPDATE resources SET state = 'gone' WHERE service_id = ?", str(service.id))
    world.database.run(
        "INSERT INTO tasks (name, subject, queue, lane, run_at)"
        " VALUES ('converge', :id, 'web', 'driver:web', now() + interval '1 hour')",
        id=busy.id,
    )
    world.database.run("UPDATE operations SET ended_at = now() WHERE service_id = :id", id=fresh.id)
    with world.fleet.owner.begin() as tx:
        ledger.enqueue(tx, RECONCILE, [(subject_of("web"), driver_place("web", "web"))])

    def is_done() -> bool:
        query = "SELECT outcome FROM reconciliations WHERE driver = 'web'"
        return bool(world.database.all(query)[0].outcome)

    wait_until(is_done, "the driver was looked at")
    (found,) = world.database.all("SELECT * FROM reconciliations WHERE driver = 'web'")
    assert found.differences == {"missing": 1, "mended": 1}


def test_what_a_list_left_out_and_is_there_is_no_difference(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.fleet.simulator.simulator.store
    whole = store.resources

    def but_the_first(after: int, limit: int, driver: str | None = None) -> Any:
        return [row for row in whole(after, limit, driver) if row["number"] > 1]

    monkeypatch.setattr(store, "resources", but_the_first)

    assert look(world).outcome == "clean"


def test_each_driver_is_looked_at_once_in_an_interval(world: Any) -> None:
    engine = world.fleet.engine("scheduler")
    for every in (0.0, 3600.0):
        Reconciliations(engine, CatalogueCache(), every).ask()
        assert world.database.all("SELECT outcome FROM reconciliations WHERE outcome <> ''") == []
        assert world.database.all("SELECT 1 FROM tasks WHERE name = 'reconcile'") == []
    Reconciliations(engine, CatalogueCache(), 1e-6).ask()
    world.fleet.settle(30)
    rows = world.database.all("SELECT driver, outcome FROM reconciliations ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        (driver, "clean") for driver in ("cloud", "dedicated", "telecom", "web")
    ]
    value = REGISTRY.get_sample_value
    labels = {"driver": "telecom", "outcome": "too_many"}
    assert value("autorenew_reconciliations_total", labels) is not None


def differing(world: Any) -> list[Any]:
    """What the audit says of infrastructures' lists."""
    (check,) = (c for c in COMPARISONS if c.code == "far.resources")
    with world.database.engine("readonly").connect() as tx:
        return list(check.look(Books(tx, far_sides=world.fleet.books())))


def test_audit_sees_that_what_was_taken_over_is_otherwise_there(
    life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = life()
    service = taken_over(world, monkeypatch, "r-1", "stray")
    world.database.run("UPDATE services SET state = 'suspended' WHERE id = :id", id=service.id)
    tried(world, service, "failed", "quota")

    assert set(differing(world)) == {("resource", "stray"), ("service", str(service.id))}


@pytest.mark.parametrize(
    ("state", "reason"),
    [(None, None), ("failed", "quota"), ("pending", None), ("unknown", None), ("done", "by_hand")],
)
def test_what_was_taken_over_is_ours_by_its_name_whatever_became_of_its_first_operation(
    life: Any, command: Any, monkeypatch: pytest.MonkeyPatch, state: str | None, reason: str | None
) -> None:
    world = life()
    service = taken_over(world, monkeypatch, "r-1")
    if state is not None:
        tried(world, service, state, reason)

    result = command(world)("--driver", "web", "--mend", "--terminate", "r-1")

    assert result.stdout == "differences between drivers' books and ours: none\n"
    assert "r-1 was not ended" in result.stderr
    assert world.service() == service
    assert differing(world) == []
    far(world, "INSERT INTO resources (driver, service_id, resource_id, state)"
               " VALUES ('web', ?, 'r-1', 'active')", str(service.id))  # fmt: skip
    assert differing(world) == [("service", str(service.id))]  # there twice
    assert world.happened("lane.orphan%") == []


@pytest.mark.parametrize(
    ("state", "reason"), [("failed", "quota"), ("done", "by_hand"), (None, None)]
)
def test_what_was_taken_over_and_is_not_listed_is_never_made_anew(
    life: Any, command: Any, monkeypatch: pytest.MonkeyPatch, state: str | None, reason: str | None
) -> None:
    world = life(reconcile_mends=["missing"])
    service = taken_over(world, monkeypatch)
    if state is not None:
        tried(world, service, state, reason)

    assert look(world).differences == {"missing": 1, "mended": 0}
    result = command(world)("--driver", "web", "--mend", "--json")

    assert result.exit_code == 1
    (told,) = map(json.loads, result.stdout.splitlines())
    assert (told["difference"], told["resource"]) == ("missing", "r-1")
    assert "its own name only" in told["note"]
    assert world.service() == service
    assert resources(world) == []


def test_what_was_taken_over_and_is_known_by_our_id_since_is_made_anew(
    life: Any, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = life(reconcile_mends=["missing"])
    tried(world, taken_over(world, monkeypatch), "done")

    assert look(world).differences == {"missing": 1, "mended": 1}
    assert world.service().resource_id == "web-1"


def test_what_is_listed_twice_is_one_resource(
    world: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.fleet.simulator.simulator.store
    insert = (
        "INSERT INTO resources (driver, service_id, resource_id, state) VALUES ('web', ?, ?, ?)"
    )
    far(world, insert, "somebody's", "stray", "active")
    whole = store.resources

    def moving(after: int, limit: int, driver: str | None = None) -> Any:
        """All of it on a first page, and once more on a second."""
        page = whole(0, limit, driver)
        if after >= 2000:
            return []
        return [row | {"number": row["number"] + (2000 if after else 1000)} for row in page]

    monkeypatch.setattr(store, "resources", moving)

    result = cli("--driver", "web", "--json")
    (told,) = map(json.loads, result.stdout.splitlines())
    assert (told["difference"], told["resource"]) == ("orphan", "stray")


def test_drivers_that_the_database_does_not_belong_with_are_not_asked(world: Any, cli: Any) -> None:
    (lost, *_) = sites(world)
    far(world, "UPDATE resources SET state = 'gone' WHERE service_id = ?", str(lost.id))
    world.database.run("DELETE FROM far_sides")
    world.database.run(
        "INSERT INTO far_sides (kind, name, identity) VALUES ('driver', 'web', 'http x')"
    )

    result = cli("--driver", "web", "--mend")

    assert result.exit_code == 2
    assert "driver web of this database is http x" in result.stderr
    assert lost in world.services()


@pytest.mark.parametrize("chosen", [(), ("--driver", "web", "--driver", "cloud")])
def test_a_resource_is_ended_of_one_driver_only(world: Any, cli: Any, chosen: Any) -> None:
    insert = "INSERT INTO resources (driver, service_id, resource_id, state) VALUES (?, ?, ?, ?)"
    for driver in ("web", "cloud"):
        far(world, insert, driver, f"its-{driver}", "stray", "active")
    before = resources(world)

    result = cli(*chosen, "--terminate", "stray")

    assert result.exit_code == 2
    assert "one --driver" in result.stderr
    assert resources(world) == before


@pytest.mark.parametrize(
    ("rule", "event", "answer", "said", "code"),
    [
        (
            {"fault": "in_progress", "seconds": 60}, "lane.orphan_ended", "in_progress",
            "stray is being ended: in_progress", 0,
        ),
        (
            {"fault": "refuse", "reason": "locked"}, "lane.orphan_not_ended", "refused",
            "stray was not ended: refused: locked", 1,
        ),
        (
            {"fault": "busy", "times": 99, "seconds": 60}, "lane.orphan_not_ended", "unavailable",
            "stray was not ended: unavailable", 1,
        ),
        (
            {"fault": "error", "times": 99}, "lane.orphan_not_ended", "unknown",
            "stray may or may not have been ended: unknown", 1,
        ),
    ],
    ids=lambda value: value["fault"] if isinstance(value, dict) else None,
)  # fmt: skip
def test_what_a_driver_answers_to_the_end_of_an_orphan_is_said_and_kept(
    world: Any, cli: Any, rule: Any, event: str, answer: str, said: str, code: int
) -> None:
    insert = (
        "INSERT INTO resources (driver, service_id, resource_id, state) VALUES ('web', ?, ?, ?)"
    )
    far(world, insert, "00000000-0000-4000-8000-000000000001", "stray", "active")
    world.fleet.simulator.simulator.faults.add(rule | {"operation": "terminate"})

    result = cli("--driver", "web", "--terminate", "stray", "--because", "nobody's")

    assert result.exit_code == code
    (line_,) = result.stderr.splitlines()
    assert line_.startswith(said)
    begun, ended = world.happened("lane.orphan%")
    assert (begun.name, begun.detail["resource"]) == ("lane.orphan_ending", "stray")
    assert (ended.name, ended.detail["answer"]) == (event, answer)
    assert begun.detail["because"] == ended.detail["because"] == "nobody's"


def test_an_end_that_begins_is_in_the_history_whatever_becomes_of_the_call(
    world: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = (
        "INSERT INTO resources (driver, service_id, resource_id, state) VALUES ('web', ?, ?, ?)"
    )
    far(world, insert, "00000000-0000-4000-8000-000000000001", "stray", "active")

    async def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(HttpDriver, "perform", killed)
    assert cli("--driver", "web", "--terminate", "stray").exit_code != 0
    ((name, detail),) = world.happened("lane.orphan%")
    assert (name, detail["resource"]) == ("lane.orphan_ending", "stray")


def test_why_a_named_resource_is_not_ended_is_said(world: Any, cli: Any) -> None:
    fine, busy, lost = sites(world)
    far(world, "UPDATE resources SET state = 'suspended' WHERE service_id = ?", str(lost.id))
    world.database.run(
        "UPDATE services SET state = 'terminated', desired = 'absent', confirmed = 'absent',"
        " next_step = NULL, next_step_at = NULL WHERE id = :id",
        id=busy.id,
    )
    world.database.run("UPDATE operations SET ended_at = now() WHERE service_id = :id", id=busy.id)
    named = [s.resource_id for s in (fine, busy, lost)]

    result = cli("--driver", "web", *(word for name in named for word in ("--terminate", name)))

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{fine.resource_id} was not ended: driver web lists no such resource that should not be"
        " there",
        f"{busy.resource_id} was not ended: service {busy.id} is under way, or was changed a short"
        " while ago",
        f"{lost.resource_id} was not ended: it is that of service {lost.id}, which should be there",
    ]
    assert world.happened("lane.orphan%") == []


def test_that_a_list_cannot_be_read_is_why_nothing_of_it_is_ended(
    world: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the list is broken")

    monkeypatch.setattr(world.fleet.simulator.simulator.store, "resources", broken)

    result = cli("--driver", "web", "--terminate", "stray")

    assert result.exit_code == 2
    assert "stray was not ended: driver web: unavailable" in result.stderr


def test_a_list_that_can_be_read_does_not_close_a_lane(world: Any) -> None:
    with world.fleet.owner.begin() as tx:
        cause = OpenCause.FAILING
        breakers.open_lane(tx, "driver:web", "web", cause, "HTTP 500", seconds=0.0)

    assert look(world).outcome == "clean"

    query = "SELECT lane, reason, probes FROM lane_breakers"
    assert world.database.all(query) == [("driver:web", "HTTP 500", 0)]
    assert world.happened("lane.closed") == []


def test_a_list_that_cannot_be_read_keeps_a_lane_open(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the list is broken")

    monkeypatch.setattr(world.fleet.simulator.simulator.store, "resources", broken)
    with world.fleet.owner.begin() as tx:
        cause = OpenCause.FAILING
        breakers.open_lane(tx, "driver:web", "web", cause, "HTTP 500", seconds=0.0)
        ledger.enqueue(tx, RECONCILE, [(subject_of("web"), driver_place("web", "web"))])

    def is_probed() -> bool:
        return bool(world.database.all("SELECT 1 FROM lane_breakers WHERE probes > 0"))

    wait_until(is_probed, "a probe has failed", 20)
    assert world.happened("lane.closed") == []


def test_what_is_listed_by_its_name_and_is_otherwise_is_converged_by_that_name(
    life: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = life()
    service = taken_over(world, monkeypatch, "r-1")
    tried(world, service, "failed", "quota")
    world.database.run(
        "UPDATE services SET state = 'suspended', desired = 'suspended', confirmed = 'suspended',"
        " suspended_at = now()"
    )

    assert look(world).differences == {"state": 1, "mended": 1}
    assert resources(world)[0][:2] == (str(service.id), "suspended")
    assert world.service().resource_id == "r-1"
