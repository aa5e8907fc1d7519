"""Services of another system are imported once; bad rows do not harm the good ones."""

import csv
import io
import json
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from autorenew.cli.importing import import_services as command
from producers.imports.importing import Counts, Reject, import_services
from producers.imports.rows import REDACTED, Form
from producers.renewals import next_steps
from schemas.catalogue.store import CatalogueCache, set_rollout
from schemas.clock import FixedClock
from schemas.errors import AutorenewError
from schemas.rules.lifecycle import periods_to_reach
from schemas.values import Period, derived_id
from tests.conftest import Database
from tests.support import given

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SERVICE = derived_id("imported service", "web", "r-1")


def row(**changes: Any) -> dict[str, Any]:
    fields = {
        "customer": "alice",
        "plan": "site",
        "period": "P1M",
        "resource_id": "r-1",
        "expires_on": "2026-06-30",
        "anchor": "2026-01-31",
        "contract_version": 2,
        "payment_method": "tok-alice",
        "payment_method_expires": "2027-02",
        "configuration": {"domain": "a.example"},
        "subsidiary": "FR",
        "country": "FR",
        "language": "fr",
        "email": "alice@example.com",
    } | changes
    return {name: value for name, value in fields.items() if value is not None}


def bare(**changes: Any) -> dict[str, Any]:
    """A row without the fields that describe its customer."""
    return row(
        **dict.fromkeys(("subsidiary", "country", "language", "email", "contract_version"))
        | dict.fromkeys(("payment_method", "payment_method_expires"))
        | changes
    )


def ndjson(*rows: Any) -> bytes:
    return b"".join(json.dumps(fields).encode() + b"\n" for fields in rows)


Take = Callable[..., tuple[Counts, list[Reject]]]


@pytest.fixture
def take(database: Database) -> Take:
    """Imports rows, or bytes, as the role ``api``."""
    with database.owner.begin() as tx:
        set_rollout(tx, "ovh", "FR", date(2026, 1, 1))

    def run(*rows: Any, form: Form = "ndjson", **options: Any) -> tuple[Counts, list[Reject]]:
        body = rows[0] if rows and isinstance(rows[0], bytes) else ndjson(*rows)
        rejects: list[Reject] = []
        counts = import_services(
            database.engine("api"),
            CatalogueCache(),
            FixedClock(NOW),
            io.BytesIO(body),
            form,
            rejects.append,
            **({"realm": "shop"} | options),
        )
        return counts, rejects

    return run


def codes(rejects: list[Reject]) -> list[tuple[int, list[str]]]:
    return [(reject.line, [p.code for p in reject.problems]) for reject in rejects]


def everything(database: Database) -> dict[str, list[Any]]:
    tables = ("customers", "payment_methods", "agreements", "services", "events")
    return {name: database.all(f"SELECT * FROM {name} ORDER BY 1, 2") for name in tables}


def test_service_is_imported_with_its_customer_contract_and_payment_method(
    take: Take, database: Database
) -> None:
    counts, rejects = take(row())

    assert (counts, rejects) == (Counts(imported=1), [])
    method = derived_id("payment method", "alice", "tok-alice")
    (found,) = database.all("SELECT * FROM services")
    assert found._asdict() | {"mode_changed_at": None} == {
        "id": SERVICE,
        "order_id": None,
        "line": None,
        "unit": None,
        "customer_id": "alice",
        "subsidiary": "FR",
        "plan": "site",
        "universe": "web",
        "brand": "ovh",
        "driver": "web",
        "configuration": {"domain": "a.example"},
        "period_months": 1,
        "mode": "automatic",
        "state": "active",
        "anchor": date(2026, 1, 31),
        "paid_periods": 5,
        "imported_periods": 5,
        "expires_at": datetime(2026, 6, 29, 22, tzinfo=UTC),
        "desired": "active",
        "generation": 1,
        "confirmed": "active",
        "confirmed_until": date(2026, 6, 30),
        "resource_id": "r-1",
        "details": None,
        "suspended_at": None,
        "held_at": None,
        "held_because": None,
        "taken_over_at": NOW,
        "mode_before": None,
        "mode_changed_at": None,
        "payment_method_id": method,
        "pays_until": None,
        "agreed_version": 2,
        "next_step": "remind",
        "next_step_at": datetime(2026, 6, 15, 6, tzinfo=UTC),
        "next_subject": SERVICE,
    }
    assert database.all(
        "SELECT id, subsidiary, country, language, email, vat_number, payment_method_id"
        " FROM customers"
    ) == [("alice", "FR", "FR", "fr", "alice@example.com", None, method)]
    assert database.all("SELECT id, customer_id, token, expires_on FROM payment_methods") == [
        (method, "alice", "tok-alice", date(2027, 2, 28))
    ]
    assert database.all("SELECT customer_id, contract, version FROM agreements") == [
        ("alice", "terms", 2)
    ]
    assert database.all("SELECT subject, name FROM events") == [(SERVICE, "service.imported")]


def test_importing_a_file_again_changes_nothing(take: Take, database: Database) -> None:
    rows = [row(), row(), row(resource_id="r-2"), bare(resource_id="r-3"), row(period="x")]
    first, _ = take(*rows)
    before = everything(database)

    second, rejects = take(*rows)

    assert first == Counts(imported=3, known=1, rejected=1)
    assert second == Counts(imported=0, known=4, rejected=1)
    assert codes(rejects) == [(5, ["period_invalid"])]
    assert everything(database) == before


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_result_of_an_import_does_not_depend_on_the_size_of_chunks(
    take: Take, database: Database, chunk: int
) -> None:
    counts, rejects = take(
        bare(resource_id="r-0"),
        row(),
        bare(resource_id="r-2"),
        row(expires_on="2026-07-31"),
        row(plan="gift"),
        row(resource_id="r-3", customer="bob", subsidiary="IE", country="IE"),
        bare(resource_id="r-4", customer="bob", subsidiary="FR"),
        row(resource_id="r-2", customer="bob", subsidiary="IE"),
        chunk=chunk,
    )
    assert counts == Counts(imported=3, known=0, rejected=5)
    assert codes(rejects) == [
        (1, ["customer_unknown"]),
        (4, ["duplicate_in_file"]),
        (5, ["resource_taken"]),
        (7, ["customer_mismatch"]),
        (8, ["resource_taken"]),
    ]
    assert database.value("SELECT count(*) FROM events") == 3


@pytest.mark.parametrize("chunk", [1, 100])
def test_dry_run_reports_the_same_as_an_import_and_writes_nothing(
    take: Take, database: Database, chunk: int
) -> None:
    rows = [row(), row(), bare(resource_id="r-2"), row(resource_id="r-3", plan="nothing")]
    said = take(*rows, dry_run=True, chunk=chunk)
    assert everything(database) == {name: [] for name in everything(database)}
    assert take(*rows, chunk=chunk) == said


def test_import_uses_a_known_customers_contract_and_method_and_does_not_change_them(
    take: Take, database: Database
) -> None:
    database.place(given.order("k-1", customer="alice", contracts=[
        {"contract": "terms", "version": 2}]))  # fmt: skip
    saved = derived_id("payment method", "alice", "tok-alice")
    database.run("UPDATE customers SET payment_method_id = :saved", saved=saved)
    database.run("UPDATE payment_methods SET expires_on = '2030-01-31'")
    before = database.all("SELECT * FROM customers")

    counts, rejects = take(
        bare(),
        row(resource_id="r-2", email="new@example.com"),
        row(resource_id="r-3", subsidiary="IE", country="IE"),
    )

    assert counts == Counts(imported=2, rejected=1)
    assert codes(rejects) == [(3, ["customer_mismatch"])]
    assert database.all("SELECT * FROM customers") == before
    assert database.all(
        "SELECT DISTINCT payment_method_id, agreed_version FROM services WHERE order_id IS NULL"
    ) == [(saved, 2)]


def test_interrupted_import_can_be_continued(take: Take, database: Database) -> None:
    class Interrupted(Exception):
        pass

    done: list[int] = []

    def stop(rows: int) -> None:
        done.append(rows)
        if len(done) == 3:
            raise Interrupted

    rows = [row(resource_id=f"r-{n}") for n in range(10)]
    with pytest.raises(Interrupted):
        take(*rows, chunk=2, progress=stop)
    there = database.value("SELECT count(*) FROM services")
    assert 0 < there < 10

    assert take(*rows, chunk=2)[0] == Counts(imported=10 - there, known=there)
    assert database.value("SELECT count(*) FROM events") == 10


@pytest.mark.parametrize(("subsidiary", "taken_over"), [("FR", True), ("IE", False)])
def test_customer_who_orders_during_an_import_is_kept_as_in_the_order(
    take: Take, database: Database, subsidiary: str, taken_over: bool
) -> None:
    with database.owner.connect() as order:
        order.execute(
            text("INSERT INTO customers (id, subsidiary, country, language, email)"
                 " VALUES ('alice', :subsidiary, 'FR', 'fr', 'b@example.com')"),
            {"subsidiary": subsidiary},
        )  # fmt: skip

        def commit(_done: int) -> None:
            order.commit()  # the import has looked and not found it

        if taken_over:
            assert take(row(), progress=commit)[0] == Counts(imported=1)
        else:
            with pytest.raises(AutorenewError) as error:
                take(row(), progress=commit)
            assert error.value.code == "import_disturbed"
    assert database.value("SELECT email FROM customers") == "b@example.com"
    assert database.value("SELECT count(*) FROM services") == int(taken_over)


def test_only_one_import_runs_at_a_time(take: Take, database: Database) -> None:
    def again(_done: int) -> None:
        with pytest.raises(AutorenewError) as error:
            take(row())
        assert error.value.code == "import_running"

    assert take(row(), progress=again)[0] == Counts(imported=1)
    assert take(row())[0] == Counts(known=1)


def test_service_of_a_plan_off_sale_is_imported_at_its_last_price(
    take: Take, database: Database
) -> None:
    database.run("UPDATE plans SET on_sale = false WHERE code = 'site'")
    database.run("UPDATE prices SET on_sale = false WHERE plan = 'site'")
    assert take(row())[0] == Counts(imported=1)


def test_suspended_service_is_imported_as_suspended(take: Take, database: Database) -> None:
    take(row(state="suspended", mode="manual"))
    assert database.all("SELECT state, desired, confirmed, suspended_at FROM services") == [
        ("suspended", "suspended", "suspended", NOW)
    ]


@pytest.mark.parametrize("mode", ["automatic", "manual", "stop"])
@pytest.mark.parametrize("state", ["active", "suspended"])
@pytest.mark.parametrize("contract_version", [None, 1, 2])
@pytest.mark.parametrize(
    ("anchor", "expires_on"),
    [
        (None, "2026-06-30"),
        ("2024-12-31", "2025-06-30"),
        ("2025-01-03", "2026-06-03"),
        ("2025-01-31", "2026-06-30"),
    ],
)
def test_next_step_of_an_imported_service_is_the_one_the_rule_gives(
    take: Take,
    database: Database,
    mode: str,
    state: str,
    contract_version: int | None,
    anchor: str | None,
    expires_on: str,
) -> None:
    columns = "next_step, next_step_at, next_subject"
    take(row(mode=mode, state=state, contract_version=contract_version, anchor=anchor,
             expires_on=expires_on))  # fmt: skip
    before = database.all(f"SELECT {columns} FROM services")
    assert len(before) == 1

    with database.owner.begin() as tx:
        next_steps.decide_again(tx, [SERVICE], CatalogueCache().current(tx), NOW)

    assert database.all(f"SELECT {columns} FROM services") == before


def test_two_imported_services_that_renew_on_one_day_share_a_payment_request(
    take: Take, database: Database
) -> None:
    # Charged before it is reminded of, so that this is what comes first.
    database.run("UPDATE policies SET definition = jsonb_set(definition, '{reminders}', '[1]')")
    take(row(), row(resource_id="r-2"))
    found = database.all("SELECT DISTINCT next_step, next_subject FROM services")
    assert [step for step, _ in found] == ["request"]


def test_good_rows_of_a_csv_file_are_imported_whatever_bytes_lie_between_them(
    take: Take, database: Database
) -> None:
    header = b"customer,plan,period,resource_id,expires_on,payment_method,"
    header += b"subsidiary,country,language,email\n"
    end = b"FR,FR,fr,a@example.com"
    body = b"\n".join(
        [
            header + b"alice,site,P1M,r-1,2026-06-30,tok," + end,
            b"\xff\xfe,site,P1M,r-2,2026-06-30,tok-secret," + end,
            b"alice,site,P1M,r-\x00,2026-06-30,tok-secret," + end,
            b"alice,site,P1M",
            b'alice,site,P1M,"r-5,2026-06-30,tok-secret,' + end,
            b"alice,site,P1M,r-6,2026-06-30,tok-secret," + end + b",more",
            b"alice,site,P1M," + b"r" * 1_000_000 + b",2026-06-30,tok-secret," + end,
            b"alice\\N,site,P1M,r\\t-8,2026-06-30,tok\\\\," + end,
        ]
    )

    counts, rejects = take(body, form="csv")

    assert counts == Counts(imported=2, rejected=6)
    malformed = ["row_malformed"]
    assert codes(rejects) == [
        (3, malformed), (4, ["resource_missing"]), (5, malformed), (6, malformed),
        (7, malformed), (8, malformed),
    ]  # fmt: skip
    assert not any("tok-secret" in str(reject) for reject in rejects)
    assert database.all("SELECT customer_id, resource_id FROM services ORDER BY resource_id") == [
        ("alice", "r-1"),
        ("alice\\N", "r\\t-8"),
    ]


def test_wrong_csv_header_stops_the_import_before_anything_is_written(
    take: Take, database: Database
) -> None:
    with pytest.raises(AutorenewError, match="there is no column 'colour'"):
        take(b"customer,plan,period,resource_id,expires_on,colour\na,site,P1M,r,2026-01-01,b\n",
             form="csv")  # fmt: skip
    assert database.value("SELECT count(*) FROM events") == 0


@pytest.fixture
def cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    engine = database.engine("api")
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", url)
    group = click.Group("service", commands={"import": command})

    def run(*words: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(group, ["import", "--upstream", "shop", *words], input=stdin)

    return run


def test_rejected_rows_are_written_beside_the_file_and_can_be_imported_once_mended(
    cli: Callable[..., Result], database: Database, tmp_path: Path
) -> None:
    file, rejects = tmp_path / "old.ndjson", tmp_path / "old.ndjson.rejects.csv"
    file.write_bytes(ndjson(row(), row(resource_id="r-2", mode="x", period="P3M", email="x")))

    first = cli(str(file))

    assert (first.exit_code, first.stdout.splitlines()[0]) == (
        1,
        f"1 imported, 0 already known, 1 rejected (see {rejects})",
    )
    assert first.stdout.splitlines()[-1].split("  ")[0] == (
        "not charged, and late: renewal is not switched on"
    )
    (found,) = csv.DictReader(rejects.read_text().splitlines())
    assert (found["line"], found["code"]) == ("2", "email_invalid mode_invalid")
    assert "mode must be automatic, manual or stop" in found["message"]
    assert json.loads(found["row"])["payment_method"] == REDACTED
    assert rejects.stat().st_mode & 0o077 == 0

    mended = json.loads(found["row"]) | {"mode": "stop", "email": "a@example.com"}
    mended |= {"period": "P1M", "payment_method": "tok-alice"}
    file.write_bytes(ndjson(row(), mended))
    second = cli(str(file), "--json")

    assert second.exit_code == 0
    # Until the future is reached, by today: five periods are paid at the expiry of the row.
    periods = periods_to_reach(date(2026, 1, 31), Period(1), 5, "Europe/Paris", datetime.now(UTC))
    assert json.loads(second.stdout) == {
        "imported": 1, "known": 1, "rejected": 0, "rejects": None, "dry_run": False,
        "prospects": [
            {"decision": "not_rolled_out", "is_late": True, "services": 1,
             "net": {"amount": 3787 * periods, "currency": "EUR"}}
        ],
    }  # fmt: skip
    assert not rejects.exists()
    assert database.value("SELECT count(*) FROM services") == 2


def test_standard_input_is_imported_and_its_rejected_rows_are_printed(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    body = ndjson(row(), row(resource_id="r-2", mode="x"))

    said = cli("-", "--format", "ndjson", "--dry-run", stdin=body)
    assert said.exit_code == 1
    first, *_ = said.stdout.splitlines()
    assert first == "1 would be imported, 0 already known, 1 would be rejected"
    assert '2,mode_invalid,"mode must be' in said.stderr

    path = tmp_path / "rejects.csv"
    result = cli("-", "--format", "ndjson", "--rejects", str(path), stdin=body)
    assert result.exit_code == 1
    assert path.read_text().startswith("line,code,message,row\n2,mode_invalid,")


def test_import_command_asks_for_the_options_it_needs(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / f"{uuid.uuid4().hex}.txt"
    file.write_bytes(ndjson(row()))
    assert "use --format" in cli(str(file)).stderr
    same = cli(str(file), "--format", "ndjson", "--rejects", str(file))
    assert "--rejects is FILE itself" in same.stderr
    assert file.read_bytes() == ndjson(row())


def test_import_runs_with_the_rights_of_the_role_api(take: Take, database: Database) -> None:
    take(row(), bare(resource_id="r-2"))
    with database.engine("api").connect() as tx:
        assert not tx.execute(
            text("SELECT has_column_privilege('payment_methods', 'token', 'SELECT')")
        ).scalar_one()
