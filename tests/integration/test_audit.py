"""The audit notices what is done to the books, and nothing else."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection

from autorenew.cli import main
from autorenew.console import accounts
from monitoring.audit import (
    CHECKS,
    COMPARISONS,
    Books,
    Finding,
    audit,
    check,
    checks,
    ledger,
    pieces,
)
from monitoring.exporter.books import Comparison, verdict
from producers import history
from producers.api import keys
from producers.steps import STEPS, UNIVERSES, by_hand_place, driver_place, webhook_place
from producers.topology import DEAD_INTAKE
from schemas.books import BookUnavailable
from schemas.values import OperatorRole, derived_id
from tests.conftest import Database
from tests.integration.corruptions import CORRUPTIONS, UNNOTICED
from tests.support.everything import Everything
from tests.support.given import line, order

LEAST_FOUND = 0.97


@pytest.fixture
def world(everything: Everything) -> Everything:
    return everything


@pytest.fixture
def tx(world: Everything) -> Iterator[Connection]:
    """The owner, whom nothing keeps from anything; rolled back."""
    with world.database.owner.connect() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        yield connection
        connection.rollback()


def broken(findings: Any) -> dict[str, list[str]]:
    return {f.code: f.named for f in findings if f.broken}


def corrupt(tx: Connection, statement: str) -> None:
    tx.exec_driver_sql(statement.replace("%", "%%"))


def test_everything_has_happened(world: Everything) -> None:
    happened = dict(world.summary())

    for state in ("pending", "delivering", "active", "suspended", "terminated", "cancelled"):
        assert happened.get(f"service {state}"), state
    for state in ("accepted", "refused", "priced", "paid", "delivered", "partly_delivered",
                  "cancelled"):  # fmt: skip
        assert happened.get(f"order {state}"), state
    assert {"request open", "request paid", "request voided", "charge succeeded",
            "charge declined", "charge unknown", "refund succeeded", "credit ended",
            "credit not_delivered", "refused e-mail", "invoice in EUR", "invoice in PLN",
            "task charge failed gateway_unknown"} <= happened.keys()  # fmt: skip


@pytest.mark.parametrize("parts", [1, 3])
def test_nothing_is_broken_where_nothing_was_done(world: Everything, parts: int) -> None:
    steps: list[tuple[int, int]] = []
    with world.database.engine("readonly").connect() as reader:
        findings = audit(
            reader, world.fleet.books(), parts=parts,
            progress=lambda done, of: steps.append((done, of)),
        )  # fmt: skip

    assert broken(findings) == {}
    assert [f.code for f in findings] == [c.code for c in (*CHECKS, *COMPARISONS)]
    assert steps[-1][0] == steps[-1][1] == len(steps)


def test_every_check_has_a_corruption_that_it_notices() -> None:
    assert {c.code for c in CORRUPTIONS} == {c.code for c in CHECKS}
    assert len(CORRUPTIONS) >= 150
    assert len({c.name for c in CORRUPTIONS}) == len(CORRUPTIONS)


def test_codes_are_unique_and_sentences_too() -> None:
    every = (*CHECKS, *COMPARISONS)

    assert len({c.code for c in every}) == len({c.must for c in every}) == len(every)


def test_the_audit_notices_what_was_done_to_the_books(world: Everything, tx: Connection) -> None:
    """All but one or two in a hundred, which are listed with their reason."""
    unnoticed, untouched = [], []
    for corruption in CORRUPTIONS:
        tx.exec_driver_sql("SET session_replication_role = replica")
        before = tx.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar()
        corrupt(tx, corruption.statement)
        after = tx.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar()
        if before == after:
            untouched.append(corruption.name)
        elif not check(tx, {corruption.code})[corruption.code].broken:
            unnoticed.append((corruption.name, corruption.code))
        tx.rollback()

    assert untouched == []
    found = len(CORRUPTIONS) / (len(CORRUPTIONS) + len(unnoticed))
    assert unnoticed == [], f"{found:.1%} were found, of which {LEAST_FOUND:.0%} are to be"


def test_pieces_of_a_check_notice_what_the_whole_does(tx: Connection) -> None:
    """Of those that are cut by something else than their subjects."""
    known = {one.code: one for one in CHECKS}
    for corruption in CORRUPTIONS:
        one = known[corruption.code]
        if (
            not corruption.code.startswith(("events.", "webhooks.", "seals.", "customers."))
            or one.whole
        ):
            continue
        tx.exec_driver_sql("SET session_replication_role = replica")
        corrupt(tx, corruption.statement)
        whole, cut = Finding(one.must), Finding(one.must)
        whole.look(one, Books(tx, given=ledger.PLACES))
        for piece in pieces(4):
            cut.look(one, Books(tx, piece, given=ledger.PLACES))
        tx.rollback()
        assert cut.broken == whole.broken > 0, corruption.name


@pytest.mark.parametrize("what", UNNOTICED)
def test_what_only_another_seal_could_tell_is_listed(tx: Connection, what: str) -> None:
    """One that is noticed by now belongs to the corruptions."""
    statement, reason = UNNOTICED[what]
    corrupt(tx, statement)

    assert broken(check(tx, {c.code for c in CHECKS}).values()) == {}
    assert reason


FAR_SIDE = [
    ("DELETE FROM book WHERE kind = 'refund'", "far.money"),
    ("DELETE FROM book WHERE number = (SELECT min(number) FROM book)", "far.money"),
    ("UPDATE book SET amount = amount + 1", "far.money"),
    ("UPDATE book SET currency = 'USD'", "far.money"),
    ("INSERT INTO book (kind, key, charge_key, customer, amount, currency)"
     " VALUES ('charge', 'other', 'other', 'nils', 5, 'EUR')", "far.money"),
    ("UPDATE resources SET state = 'gone'", "far.resources"),
    ("UPDATE resources SET state = 'suspended'", "far.resources"),
    ("UPDATE resources SET driver = 'cloud'", "far.resources"),
    ("UPDATE resources SET resource_id = 'other-' || number", "far.resources"),
    ("UPDATE resources SET paid_until = '2020-01-01'", "far.resources"),
    ("UPDATE resources SET state = 'active' WHERE state = 'gone'", "far.resources"),
    ("INSERT INTO resources (driver, service_id, resource_id, state)"
     " SELECT driver, service_id, 'again', state FROM resources", "far.resources"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "code"), FAR_SIDE)
def test_our_books_are_compared_with_those_of_the_gateway_and_the_infrastructure(
    world: Everything, monkeypatch: pytest.MonkeyPatch, statement: str, code: str
) -> None:
    monkeypatch.setattr("monitoring.audit.RECHECK_SECONDS", 0.0)
    theirs = world.fleet.simulator.simulator.store._db
    theirs.execute("SAVEPOINT before")
    try:
        theirs.execute(statement)
        with world.database.owner.connect() as tx:
            found = broken(audit(tx, world.fleet.books()))
    finally:
        theirs.execute("ROLLBACK TO before")
        theirs.execute("RELEASE before")

    assert found.keys() == {code}


def test_exporter_compares_the_gateways_books_and_keeps_its_verdict(world: Everything) -> None:
    engine = world.database.engine("exporter")
    theirs = world.fleet.simulator.simulator.store._db
    comparison = Comparison(engine, world.fleet.books(), 3600.0, sleep=lambda _: None)

    def told() -> tuple[float, float]:
        with engine.connect() as tx:
            found = {family.name: samples for family, samples in verdict(tx).items()}
        violations = found.get("autorenew_invariant_violations", {}).get(("far.money",), -1)
        return violations, found["autorenew_last_book_comparison_timestamp_seconds"][()]

    assert told() == (-1, 0.0)
    comparison.round()
    violations, first = told()
    assert violations == 0
    assert first > 1e9
    theirs.execute("SAVEPOINT before")
    try:
        theirs.execute("DELETE FROM book WHERE kind = 'refund'")
        assert comparison.round() == 60.0  # it is not time yet
        assert told() == (0, first)
        differing = comparison.compare()
    finally:
        theirs.execute("ROLLBACK TO before")
        theirs.execute("RELEASE before")
    violations, second = told()
    assert violations == differing.broken > 0
    assert second > first

    class Away:
        def money(self) -> Any:
            raise BookUnavailable("gateway default: it is away")

    Comparison(engine, Away(), 1e-9).round()  # type: ignore[arg-type]
    assert told() == (violations, second)  # nothing is concluded
    problem = "SELECT problem FROM audit_findings WHERE invariant = 'far.money'"
    assert world.database.value(problem) == "gateway default: it is away"


def test_steps_and_their_places_are_those_of_the_fleet() -> None:
    ours = {name: (queue, lane) for name, queue, lane in ledger.STEPS}

    for name, step in STEPS.items():
        if name in ledger.OF_DRIVERS:
            assert step.queues == UNIVERSES
            assert driver_place("web", "x").lane == "driver:x"
        elif name in ledger.BY_HAND:
            assert step.queues == ("billing", *UNIVERSES)
            assert by_hand_place("web").lane == step.lane == "by_hand"
        elif name in ledger.OF_ENDPOINTS:
            assert step.queues == (webhook_place("x").queue,) == ("webhooks",)
            assert webhook_place("x").lane == "webhook:x"
        else:
            assert ours.pop(name) == (step.place.queue, step.place.lane)
    assert ours == {}


def test_ids_are_said_with_what_they_are(tx: Connection) -> None:
    corrupt(tx, "UPDATE orders SET ended_at = now() WHERE key = 'sam'")
    corrupt(tx, "UPDATE invoices SET vat_number = 'x'")
    corrupt(tx, "UPDATE services SET held_because = 'x' WHERE customer_id = 'nils'")

    found = check(tx, {"orders.facts", "invoices.party", "services.shape"})
    from monitoring.audit.naming import name

    name(tx, list(found.values()))
    assert found["orders.facts"].named == ["order sam of shop"]
    assert found["services.shape"].named == [
        f"service {found['services.shape'].ids[0]} (site of nils)"
    ]
    invoices = found["invoices.party"]
    assert invoices.broken > len(invoices.named) == checks.SHOWN
    assert invoices.named[0].startswith("invoice ")


def test_what_cannot_be_read_is_broken_and_the_others_are_checked(tx: Connection) -> None:
    corrupt(tx, "UPDATE policies SET definition = '{}'")

    found = broken(check(tx, {"steps.next", "orders.state"}).values())

    assert found.keys() == {"steps.next"}


def test_a_fleet_at_work_is_not_taken_for_a_broken_one(embedded: Any, database: Database) -> None:
    fleet = embedded([{"fault": "error", "rate": 0.1}])
    documents = [order(f"k-{n}", line("site", quantity=2), customer=f"c-{n}") for n in range(150)]
    seen = []
    with database.owner.connect() as tx:
        for first in range(0, len(documents), 30):
            database.place(*documents[first : first + 30])
            for _ in range(3):
                seen += [(f.code, f.named) for f in audit(tx) if f.broken]
        tx.rollback()
    fleet.wait_until_idle(60)

    assert seen == []


@pytest.fixture
def cli(world: Everything, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command as a database role."""

    def run(role: str, *arguments: str) -> Result:
        url = world.database._postgres.role_url("everything", role)
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url)
        return CliRunner().invoke(main, ["audit", *arguments])

    return run


def test_the_command_says_that_all_holds(cli: Any) -> None:
    result = cli("readonly", "--parts", "2")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == f"all {len(CHECKS)} checks hold"


@pytest.mark.parametrize("role", ["api", "billing", "provisioning", "relay"])
def test_a_role_without_the_rights_is_told_which_one_has_them(cli: Any, role: str) -> None:
    result = cli(role)

    assert result.exit_code == 2
    (said,) = result.stderr.splitlines()
    assert "autorenew_readonly" in said


def test_the_command_says_first_what_is_broken(cli: Any, world: Everything) -> None:
    world.database.run("UPDATE orders SET reason = 'given_up' WHERE key = 'nils'")
    world.database.run("UPDATE subsidiaries SET changed_at = now() WHERE code = 'PL'")
    try:
        told, as_json = cli("readonly"), cli("readonly", "--json")
    finally:
        world.database.run("UPDATE orders SET reason = NULL WHERE key = 'nils'")
        world.database.run("UPDATE subsidiaries SET changed_at = NULL WHERE code = 'PL'")

    assert told.exit_code == as_json.exit_code == 1
    first, second = told.stdout.splitlines()[:2]
    assert first.startswith("broken  catalogue.changes: ")
    assert second.strip() == "subsidiary PL"
    rows = [json.loads(row) for row in as_json.stdout.splitlines()]
    assert [row["check"] for row in rows if row["broken"]] == ["catalogue.changes"]
    assert rows[0]["ids"] == ["PL"]
    assert rows[0]["named"] == ["subsidiary PL"]


def test_keys_operators_and_queues_have_a_history_without_a_row(database: Database) -> None:
    with database.owner.begin() as tx:
        keys.create(tx, "shop", {keys.KeyScope.ORDERS_WRITE}, upstream="shop")
        keys.revoke(tx, "shop")
        accounts.add(tx, "jeanne", OperatorRole.OPERATOR, None)
        accounts.remove(tx, "jeanne")
        subject = derived_id("queue", DEAD_INTAKE)
        history.record(tx, [history.Event(subject, "documents.put_back", {"documents": 1})])

    with database.engine("readonly").connect() as reader:
        assert broken(audit(reader)) == {}
