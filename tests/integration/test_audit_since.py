"""An audit that continues an earlier one finds what is wrong with what changed since."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, text

from autorenew.cli import main
from monitoring.audit import CHECKS, Since, audit, audit_since, marks
from monitoring.audit.changed import Changed, narrowed
from monitoring.audit.checks import Books, Finding, Offence
from monitoring.audit.ledger import PLACES
from monitoring.audit.marks import Mark
from monitoring.seals import Head
from schemas.errors import ConfigurationError
from tests.conftest import Database
from tests.integration.corruptions import CORRUPTIONS
from tests.integration.test_audit import broken, corrupt
from tests.support.everything import Everything, seal
from tests.support.given import line, order

BEGINNING = Mark(datetime(2026, 1, 1, tzinfo=UTC), 0, ())
# Rows that belong to nothing any more that the history names, and customers: they are known by all
# of their orders.
FOUND_BY_A_FULL_RUN = {
    "a charge is of a request that is not there",
    "an operation is of a service that is not there",
    "a sent e-mail says nothing",
    "a renewal's request is to another country",
    "a customer lives elsewhere",
    "a customer is a business",
}


@pytest.fixture
def tx(everything: Everything) -> Iterator[Connection]:
    """The owner, whom nothing keeps from anything; rolled back."""
    with everything.database.owner.connect() as connection:
        yield connection
        connection.rollback()


def subjects(tx: Connection) -> list[Any]:
    return list(tx.execute(text("SELECT DISTINCT subject FROM events ORDER BY 1")).scalars())


@pytest.mark.parametrize("at_once", [1, 7, 2000])
def test_nothing_is_broken_where_nothing_was_done(everything: Everything, at_once: int) -> None:
    """Whatever it is that changed: each subject alone, a few, or all."""
    steps: list[tuple[int, int]] = []
    with everything.database.engine("readonly").connect() as reader:
        found = audit_since(
            reader, BEGINNING, at_once=at_once,
            progress=lambda done, of: steps.append((done, of)),
        )  # fmt: skip
        assert found.subjects == len(subjects(reader))

    assert broken(found.findings) == {}
    assert {f.code for f in found.findings} == {c.code for c in CHECKS}
    assert {f.code for f in found.findings if not f.is_done} == {"customers.home"}
    assert steps[-1][0] == steps[-1][1] == len(steps)


def test_nothing_is_looked_at_where_nothing_changed(everything: Everything) -> None:
    with everything.database.engine("readonly").connect() as reader:
        found = audit_since(reader, marks.take(reader))

    assert found.subjects == 0
    assert broken(found.findings) == {}


def test_what_was_done_to_what_changed_is_noticed(everything: Everything, tx: Connection) -> None:
    """As by a run over everything, but for what is listed."""
    before, changed, unnoticed = marks.take(tx), subjects(tx), set()
    checks = {check.code: check for check in CHECKS}
    for corruption in CORRUPTIONS:
        check = checks[corruption.code]
        finding = Finding(check.must)
        tx.exec_driver_sql("SET session_replication_role = replica")
        corrupt(tx, corruption.statement)
        if check.since is Since.ONCE:
            for mark in (BEGINNING, before):
                finding.look(check, Books(tx, given=PLACES, mark=mark))
        elif check.since is Since.CHANGED:
            of = Changed.of(tx, changed)
            finding.look(check, Books(tx, given=PLACES, changed=of))
        if not finding.broken:
            unnoticed.add(corruption.name)
        tx.rollback()

    assert unnoticed == FOUND_BY_A_FULL_RUN
    assert len(CORRUPTIONS) - len(unnoticed) >= 0.98 * len(CORRUPTIONS)


CHAINED = {
    "the last invoice is another one, and hashed anew": (
        """UPDATE invoices AS i SET total = total + 1, net = net + 1, hash = sha256('x')
           FROM invoice_series AS s WHERE i.series = s.code AND i.number = s.last_number;
           UPDATE invoice_series SET last_hash = sha256('x')""",
        "seals.documents",
    ),
    "the last invoice is deleted, and the counter goes back": (
        """DELETE FROM invoices AS i USING invoice_series AS s
           WHERE i.series = s.code AND i.number = s.last_number AND s.code LIKE 'FR-____';
           UPDATE invoice_series AS s SET last_number = last_number - 1, last_hash = i.hash
           FROM invoices AS i WHERE i.series = s.code AND i.number = s.last_number - 1
             AND s.code LIKE 'FR-____'""",
        "seals.documents",
    ),
    "a counter is ahead": (
        "UPDATE invoice_series SET last_number = last_number + 1", "numbers.counter",
    ),
    "the history is hashed anew": (
        """UPDATE seals SET hash = sha256('x');
           UPDATE sealing SET hash = sha256('x')""",
        "seals.history",
    ),
    "the history begins anew": (
        """DELETE FROM seals;
           UPDATE sealing SET last_id = 0, number = 0, hash = chain_start('events')""",
        "seals.history",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHAINED)
def test_a_chain_that_does_not_continue_the_one_before_is_broken(tx: Connection, what: str) -> None:
    """Also where whoever did it has computed all hashes anew."""
    statement, code = CHAINED[what]
    mark = marks.take(tx)
    tx.exec_driver_sql("SET session_replication_role = replica")
    corrupt(tx, statement)

    check = next(check for check in CHECKS if check.code == code)
    finding = Finding(check.must)
    finding.look(check, Books(tx, given=PLACES, mark=mark))

    assert finding.broken


def test_a_range_that_is_said_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="BETWEEN :low AND :high"):
        narrowed("SELECT 'order', id FROM orders WHERE id >= :low")


def test_what_is_found_in_two_pieces_is_counted_once() -> None:
    finding = Finding("x", known=set())
    for _ in range(2):
        finding.add([Offence("order", "a"), Offence("order", "b")])

    assert (finding.broken, finding.ids) == (2, ["a", "b"])


@pytest.fixture
def run_audit(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``audit --mark FILE`` as readonly."""

    def run(*arguments: str) -> Result:
        url = database._postgres.role_url(database.name, "readonly")
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url)
        return CliRunner().invoke(
            main, ["audit", "--no-far-sides", "--mark", str(tmp_path / "mark"), *arguments]
        )

    return run


def tamper(database: Database, *statements: str) -> None:
    """By somebody who may do everything; the history does not tell it."""
    with database.owner.begin() as tx:
        tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for statement in statements:
            assert tx.exec_driver_sql(statement).rowcount > 0, statement


def test_orders_and_renewals_since_the_last_run_are_audited(
    life: Any, database: Database, run_audit: Any, tmp_path: Path
) -> None:
    world = life()
    world.order(line("site", quantity=2), key="old", customer="olga")
    renewed = world.order(line("site"), key="renewed", customer="rita")
    seal(world.fleet.owner)
    first = run_audit("--since")
    assert first.exit_code == 0, first.output
    assert "looking at everything" in first.stderr
    begun = marks.read(tmp_path / "mark")

    # Given changes: an order, and renewals a month later
    world.order(line("server", "P12M"), key="new", customer="nora")
    (old,) = database.all("SELECT id FROM services WHERE customer_id = 'nora'")
    world.pass_until(renewed, 1)
    seal(world.fleet.owner)
    clean = run_audit("--since")
    assert clean.exit_code == 0, clean.output
    assert "subjects that changed since" in clean.stdout.splitlines()[-1]
    assert marks.read(tmp_path / "mark") != begun
    marks.write(tmp_path / "mark", begun)

    # When they are changed behind the history's back
    kept = {
        "order": ("UPDATE order_lines SET period_months = 1 WHERE order_id ="
                  " (SELECT id FROM orders WHERE key = 'new')", "orders.lines"),
        "renewal": ("UPDATE services SET paid_periods = paid_periods + 1 WHERE customer_id ="
                    " 'rita'", "periods.paid"),
        "money": ("UPDATE charges SET amount = amount + 1 WHERE request_id IN (SELECT id FROM"
                  " payment_requests WHERE customer_id = 'rita' AND order_id IS NULL)",
                  "money.taken"),
        "task": (f"UPDATE services SET desired = 'suspended' WHERE id = '{old.id}'",
                 "services.converged"),
    }  # fmt: skip
    for statement, code in kept.values():
        tables = ("order_lines", "services", "charges")
        with database.owner.begin() as tx:
            for table in tables:
                tx.exec_driver_sql(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
        tamper(database, statement)
        result = run_audit("--since", "--json")
        assert result.exit_code == 1, (statement, result.output)
        rows = [json.loads(row) for row in result.stdout.splitlines()]
        assert code in {row["check"] for row in rows if row["verdict"] == "broken"}
        assert [row["check"] for row in rows if row["verdict"] == "not checked"] == [
            "customers.home"
        ]
        assert marks.read(tmp_path / "mark") == begun
        with database.owner.begin() as tx:
            tx.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for table in tables:
                tx.exec_driver_sql(f"DELETE FROM {table}")
                tx.exec_driver_sql(_COPY_BACK[table])
                tx.exec_driver_sql(f"DROP TABLE kept_{table}")

    assert run_audit("--since").exit_code == 0


_COPY_BACK = {
    table: f"INSERT INTO {table} SELECT * FROM kept_{table}"
    for table in ("order_lines", "services", "charges")
}


def test_what_was_done_by_hand_to_what_did_not_change_is_found_by_a_full_run(
    embedded: Any, database: Database, run_audit: Any
) -> None:
    fleet = embedded()
    database.place(order("old"))
    fleet.wait_until_idle(30)
    seal(fleet.owner)
    assert run_audit().exit_code == 0
    database.place(order("new", customer="nora"))
    fleet.wait_until_idle(30)
    tamper(
        database,
        "UPDATE services SET configuration = '{}', period_months = 3 WHERE order_id ="
        " (SELECT id FROM orders WHERE key = 'old')",
    )

    assert run_audit("--since").exit_code == 0
    assert run_audit().exit_code == 1


def test_a_fleet_at_work_is_not_taken_for_a_broken_one(embedded: Any, database: Database) -> None:
    fleet = embedded([{"fault": "error", "rate": 0.1}])
    documents = [order(f"k-{n}", line("site", quantity=2), customer=f"c-{n}") for n in range(150)]
    seen: list[Any] = []
    with database.engine("readonly").connect() as tx:
        for first in range(0, len(documents), 30):
            database.place(*documents[first : first + 30])
            for _ in range(2):
                found = audit_since(tx, BEGINNING, at_once=80).findings
                seen += [(f.code, f.named) for f in found if f.broken]
        tx.rollback()
    fleet.wait_until_idle(60)

    assert seen == []


class TestMark:
    def test_mark_is_read_as_it_was_written(self, tx: Connection, tmp_path: Path) -> None:
        mark = marks.take(tx)

        marks.write(tmp_path / "mark", mark)

        assert marks.read(tmp_path / "mark") == mark
        assert mark.last_id > 0
        assert len(mark.documents) >= 2
        assert [file.name for file in tmp_path.iterdir()] == ["mark"]

    def test_mark_that_was_not_written_yet_is_none(self, tmp_path: Path) -> None:
        assert marks.read(tmp_path / "mark") is None

    @pytest.mark.parametrize(
        "content",
        [
            "", "{", "[]", "{}", "null", '{"format": 2}',
            '{"format": 1, "at": "2026-01-01", "last_event": 1, "heads": []}',
            '{"format": 1, "at": "2026-01-01T00:00:00+00:00", "last_event": "1", "heads": []}',
            '{"format": 1, "at": "2026-01-01T00:00:00+00:00", "last_event": -1, "heads": []}',
            '{"format": 1, "at": "2026-01-01T00:00:00+00:00", "last_event": 1, "heads": [{}]}',
            '{"format": 1, "at": "2026-01-01T00:00:00+00:00", "last_event": 1, "heads":'
            ' [{"chain": "events", "number": 1, "hash": "zz"}]}',
        ],
    )  # fmt: skip
    def test_file_that_is_no_mark_is_said_to_be_none(
        self, run_audit: Any, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "mark").write_text(content)

        result = run_audit("--since")

        assert result.exit_code == 2
        (said,) = result.stderr.splitlines()
        assert "is no mark of an audit" in said

    def test_folder_that_is_not_there_is_said_before_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"cannot write .*: No such file"):
            marks.prepare(tmp_path / "none" / "mark")

    def test_mark_of_another_database_breaks_the_chains(
        self, run_audit: Any, tmp_path: Path
    ) -> None:
        other = Mark(
            BEGINNING.at, 10_000, (Head("events", 3, "00" * 32), Head("FR-2026", 7, "11" * 32))
        )
        marks.write(tmp_path / "mark", other)

        result = run_audit("--since")

        assert result.exit_code == 1
        found = {
            line.split()[1] for line in result.stdout.splitlines() if line.startswith("broken")
        }
        assert found == {"numbers.counter:", "seals.documents:", "seals.history:"}

    def test_broken_run_leaves_the_mark_as_it_was(
        self, database: Database, run_audit: Any, tmp_path: Path
    ) -> None:
        database.place(order("k-1"))
        tamper(database, "UPDATE orders SET reason = 'given_up', key = ''")

        assert run_audit().exit_code == 1
        assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since"],
        ["--since", "--mark", "x", "--parts", "2"],
        ["--since", "--mark", "x", "--far-sides"],
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["audit", *arguments])

    assert result.exit_code == 2
    assert "--since" in result.stderr


def test_full_and_continued_run_see_the_same(everything: Everything) -> None:
    with everything.database.engine("readonly").connect() as reader:
        full, since = audit(reader), audit_since(reader, BEGINNING).findings

    assert broken(full) == broken(since) == {}
