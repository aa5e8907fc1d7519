"""What was changed in documents or history after they were hashed is found."""

import hashlib
import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from autorenew.cli import main
from monitoring import seals
from monitoring.seals import Head, broken_blocks, broken_documents, heads, missing
from producers import history
from producers.history import Event
from producers.scheduler import sealing
from schemas.values import derived_id
from tests.conftest import Database
from tests.integration.test_billing import run
from tests.integration.test_rights import refused
from tests.support.given import line, order
from tests.support.operators import give_up

SUBJECT = derived_id("subject")


def seal(
    database: Database,
    *,
    block: int = 10_000,
    blocks: int = 20,
    settle: str = "0",
    times: int = 3,
) -> int:
    """Note what is complete, and seal it."""
    parameters = {"block": block, "blocks": blocks, "settle": settle}
    sealed = 0
    for _ in range(times):
        with database.engine("scheduler").begin() as tx:
            sealed += tx.execute(sealing._SEAL, parameters).scalar_one()
    return sealed


def seal_all(database: Database, *, block: int = 10_000) -> None:
    """Seal until nothing is left; nobody writes meanwhile."""
    query = "SELECT (SELECT last_id FROM sealing) = (SELECT last_value FROM events_id_seq)"
    while not database.value(query):
        seal(database, block=block)


def tampered(database: Database, *statements: str) -> Connection:
    """A transaction of somebody who may write everything, and has; roll it back."""
    tx = database.owner.connect()
    tx.execute(text("SET LOCAL session_replication_role = replica"))  # no trigger, no foreign key
    for statement in statements:
        assert tx.execute(text(statement)).rowcount > 0, statement
    return tx


@pytest.fixture
def sold(embedded: Any, database: Database) -> Database:
    """Invoices in two series, a credit note, and their history, sealed in blocks of ten ids."""
    fleet = embedded([{"target": "infrastructure", "fault": "refuse", "plan": "vm"}])
    run(
        fleet, database,
        order("k-1", line(quantity=2)), order("k-2", line("server"), customer="bob"),
        order("k-3", line("site"), line("phone"), customer="carol"),
    )  # fmt: skip
    run(fleet, database, order("k-4"), order("k-5", customer="bob"))
    fleet.scheduler._sealer._next = time.monotonic() + 3600
    seal_all(database, block=10)
    return database


class TestDocuments:
    def test_that_are_as_they_were_are_in_order(self, sold: Database) -> None:
        assert sold.value("SELECT count(*) FROM invoices WHERE hash IS NULL") == 0
        with sold.engine("readonly").connect() as tx:
            assert broken_documents(tx) == []

    def test_credit_notes_are_chained_as_well(self, embedded: Any, database: Database) -> None:
        fleet = embedded([{"target": "infrastructure", "fault": "refuse", "plan": "vm"}])
        run(fleet, database, *(order(f"k-{n}", line("vm", quantity=2)) for n in range(3)))
        failed = "SELECT subject FROM tasks WHERE state = 'failed'"
        for (subject,) in database.all(failed):
            with database.engine("api").begin() as tx:
                give_up(tx, subject)
        fleet.wait_until_idle(30)
        assert database.value("SELECT count(*) FROM credit_notes WHERE hash IS NOT NULL") == 6
        with database.engine("readonly").connect() as tx:
            assert broken_documents(tx) == []
        tx = tampered(database, "UPDATE credit_note_lines SET tax = tax - 1 WHERE invoice_line = 1")
        assert len(broken_documents(tx)) == 3
        tx.close()

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE invoices SET customer_id = 'bob' WHERE number = 1",
            "UPDATE invoices SET vat_number = 'FR1' WHERE number = 2",
            "UPDATE invoices SET issued_on = issued_on - 1 WHERE number = 2",
            "UPDATE invoices SET total = total + 1, net = net + 1 WHERE number = 3",
            "UPDATE invoices SET hash = NULL WHERE number = 2",
            "UPDATE invoices SET hash = sha256('x') WHERE number = 1",
            "UPDATE invoice_lines SET tax_rate = 19 WHERE number = 1",
            "UPDATE invoice_lines SET description = description || ' ' WHERE number = 2",
            "DELETE FROM invoice_lines WHERE number = 2",
            "DELETE FROM invoices WHERE number = 1",
            "DELETE FROM invoices WHERE number = (SELECT max(number) FROM invoices)",
            "UPDATE invoice_series SET last_hash = sha256('x')",
            "UPDATE invoices SET number = number + 100 WHERE number = 2",
        ],
    )
    def test_that_were_changed_are_found(self, sold: Database, statement: str) -> None:
        tx = tampered(sold, statement)
        assert broken_documents(tx)
        tx.close()

    def test_that_swapped_their_lines_are_both_found(self, sold: Database) -> None:
        first, second = sold.all("SELECT id FROM invoices WHERE number < 3 ORDER BY number")
        move = "UPDATE invoice_lines SET invoice_id = '{}', number = {} WHERE number = {} AND "
        tx = tampered(
            sold,
            move.format(first.id, 99, 1) + f"invoice_id = '{first.id}'",
            move.format(first.id, 1, 1) + f"invoice_id = '{second.id}'",
            move.format(second.id, 1, 99) + f"invoice_id = '{first.id}'",
        )
        assert {name[-1] for name in broken_documents(tx)} == {"1", "2"}
        tx.close()


class TestHistory:
    def test_that_is_as_it_was_is_in_order(self, sold: Database) -> None:
        events, sealed = sold.value("SELECT count(*) FROM events"), "SELECT sum(events) FROM seals"
        assert sold.value(sealed) == events
        with sold.engine("readonly").connect() as tx:
            assert list(broken_blocks(tx)) == []

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM events WHERE id = 7",
            "DELETE FROM events WHERE id > 1000000 OR id = (SELECT max(id) FROM events)",
            "UPDATE events SET at = at - interval '1 microsecond' WHERE id = 1",
            "UPDATE events SET detail = '{}' WHERE name = 'order.paid'",
            "UPDATE events SET subject = (SELECT subject FROM events WHERE id = 1) WHERE id = 12",
            "UPDATE events SET waited = waited + 1 WHERE waited IS NOT NULL",
            "INSERT INTO events (subject, id, name) OVERRIDING SYSTEM VALUE"
            " SELECT subject, -1, name FROM events WHERE id = 1",
            "DELETE FROM seals WHERE number = 1",
            "DELETE FROM seals WHERE number = (SELECT max(number) FROM seals)",
            "UPDATE seals SET hash = sha256('x') WHERE number = 2",
            "UPDATE seals SET last_id = last_id + 1 WHERE number = 2",
            "UPDATE sealing SET last_id = 5",
        ],
    )
    def test_that_was_changed_is_found(self, sold: Database, statement: str) -> None:
        tx = tampered(sold, statement)
        if "-1, name" in statement:  # before the first block there is nothing
            assert list(broken_blocks(tx)) == ["events up to 0"]
        else:
            assert list(broken_blocks(tx))
        tx.close()

    def test_deleted_with_its_seals_is_found(self, sold: Database) -> None:
        last = "(SELECT first_id FROM seals ORDER BY number DESC LIMIT 1)"
        tx = tampered(
            sold,
            f"DELETE FROM events WHERE id >= {last}",
            "DELETE FROM seals WHERE number = (SELECT max(number) FROM seals)",
        )
        assert list(broken_blocks(tx)) != []
        tx.close()

    def test_that_is_never_sealed_is_found(self, database: Database) -> None:
        with database.owner.begin() as tx:
            history.record(tx, [Event(SUBJECT, "x")])
        tx = tampered(database, "UPDATE events SET at = at - interval '2 hours'")
        assert list(broken_blocks(tx)) == ["1 events that were never sealed"]
        tx.close()

    @pytest.mark.parametrize("role", ["scheduler", "billing", "api", "readonly"])
    def test_no_role_writes_a_seal(self, database: Database, role: str) -> None:
        for statement in (
            "INSERT INTO seals (number, first_id, last_id, events, hash) VALUES (1, 1, 1, 1, '')",
            "UPDATE sealing SET last_id = 0", "DELETE FROM seals", "UPDATE seals SET events = 0",
        ):  # fmt: skip
            assert refused(database, role, statement)


class TestSealing:
    def test_waits_for_transactions_that_may_still_add_an_event(self, database: Database) -> None:
        with database.owner.begin() as early:
            history.record(early, [Event(SUBJECT, "early")])
            with database.owner.begin() as tx:
                history.record(tx, [Event(SUBJECT, "late")])
            assert seal(database, times=4) == 0
        assert seal(database, times=4) == 2
        with database.owner.connect() as tx:
            assert list(broken_blocks(tx)) == []

    def test_waits_for_a_moment(self, database: Database) -> None:
        with database.owner.begin() as tx:
            history.record(tx, [Event(SUBJECT, "x")])
        for _ in range(4):
            with database.engine("scheduler").begin() as tx:
                parameters = {"block": 10, "blocks": 10, "settle": "1 hour"}
                assert tx.execute(sealing._SEAL, parameters).scalar_one() == 0

    def test_goes_on_where_it_stopped(self, database: Database) -> None:
        for round_ in range(5):
            with database.owner.begin() as tx:
                history.record(tx, [Event(SUBJECT, f"{round_}")] * 25)
                if round_ == 2:
                    tx.rollback()  # its ids are never seen
            for _ in range(round_):  # not all of it, each time
                seal(database, block=10, blocks=1)
        seal_all(database, block=10)
        with database.owner.connect() as tx:
            assert list(broken_blocks(tx)) == []
        assert database.value("SELECT sum(events) FROM seals") == 100

    def test_by_many_at_once_under_load_leaves_no_gap(self, database: Database) -> None:
        stop = threading.Event()
        database.engine("scheduler")  # before threads ask for it

        def write(seed: int) -> None:
            for n in itertools.count():
                if stop.is_set():
                    return
                with database.owner.begin() as tx:
                    history.record(tx, [Event(SUBJECT, f"{seed}.{n}")] * (1 + n % 7))
                    if n % 5 == seed:
                        tx.rollback()

        def sealer() -> None:
            while not stop.is_set():
                seal(database, block=50, settle="300 milliseconds")

        threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
        threads += [threading.Thread(target=sealer) for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(4)
        stop.set()
        for thread in threads:
            thread.join()
        seal_all(database, block=50)

        with database.owner.connect() as tx:
            assert list(broken_blocks(tx)) == []
        events = database.value("SELECT count(*) FROM events")
        assert database.value("SELECT sum(events) FROM seals") == events > 100


class TestHeads:
    def test_that_were_kept_stay_in_the_chains(self, sold: Database, embedded: Any) -> None:
        with sold.engine("readonly").connect() as tx:
            kept = heads(tx)
        assert [head.chain for head in kept if head.chain != seals.EVENTS]
        with sold.owner.begin() as tx:
            history.record(tx, [Event(SUBJECT, "later")])
        seal_all(sold)
        with sold.engine("readonly").connect() as tx:
            assert missing(tx, kept) == []
            assert heads(tx) != kept

    def test_show_that_everything_was_computed_anew(self, sold: Database) -> None:
        with sold.owner.connect() as tx:
            kept = heads(tx)
        tx = tampered(
            sold,
            "UPDATE invoices SET customer_id = 'mallory' WHERE number = 1",
            """UPDATE invoices AS i SET hash = c.hash FROM (SELECT id, chained(chain_start(series),
                digest) OVER (PARTITION BY series ORDER BY number) AS hash
                FROM digested_documents) AS c WHERE c.id = i.id""",
            """UPDATE invoice_series AS s SET last_hash = (SELECT hash FROM invoices AS i
                WHERE i.series = s.code ORDER BY number DESC LIMIT 1)""",
        )
        assert broken_documents(tx) == []  # as it should look like
        gone = missing(tx, kept)
        assert {head.chain for head in gone} == {h.chain for h in kept if h.chain != seals.EVENTS}
        tx.close()

    def test_of_an_unknown_chain_are_missing(self, database: Database) -> None:
        head = Head("FR-1999", 3, "00")
        with database.owner.connect() as tx:
            assert missing(tx, [head]) == [head]


class TestCommands:
    def test_heads_that_are_kept_are_checked_later(
        self, sold: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", sold.url)
        kept = tmp_path / "heads"
        kept.write_text(CliRunner().invoke(main, ["seals", "heads", "--json"]).stdout)
        check = ["seals", "check", str(kept)]

        good = CliRunner().invoke(main, check)
        assert (good.exit_code, good.stdout) == (0, "2 of 2 heads are in the chains\n")
        kept.write_text(kept.read_text().replace('"hash": "', '"hash": "00'))
        bad = CliRunner().invoke(main, check)
        assert bad.exit_code == 1
        assert "events" in bad.stderr

    @pytest.mark.parametrize("content", ["", "{}", "[1]", "x", '{"chain": "a"}'])
    def test_what_is_no_head_is_refused(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
    ) -> None:
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", database.url)
        (tmp_path / "heads").write_text(content)
        result = CliRunner().invoke(main, ["seals", "check", str(tmp_path / "heads")])
        assert result.exit_code == 2
        assert "head" in result.stderr


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=4), max_size=6))
def test_each_link_of_a_chain_depends_on_all_before_it(
    database: Database, digests: list[bytes]
) -> None:
    expected, state = [], hashlib.sha256(b"FR-2026").digest()
    for digest in digests:
        state = hashlib.sha256(state + digest).digest()
        expected.append(state)
    with database.owner.connect() as tx:
        query = text("""
            SELECT chained(chain_start('FR-2026'), d) OVER (ORDER BY n)
            FROM unnest(CAST(:digests AS bytea[])) WITH ORDINALITY AS d(d, n) ORDER BY n
        """)
        found = [bytes(row) for row in tx.execute(query, {"digests": digests}).scalars()]
    assert found == expected
