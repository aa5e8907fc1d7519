"""The forecast: what falls due, by the customers' decisions, and compared with what happened."""

import csv
import json
import threading
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from autorenew.cli.forecast import forecast as command
from monitoring.forecast import (
    By,
    Decision,
    Outcome,
    ReviewRow,
    Row,
    forecast,
    review,
    take_snapshot,
)
from schemas.clock import local_midnight
from schemas.values import Universe
from tests.conftest import Database

TODAY = date(2026, 9, 15)
UNTIL = date(2027, 9, 15)
DUE = date(2026, 10, 20)
ZONES = {"FR": "Europe/Paris", "IE": "Europe/Dublin", "CA": "America/Toronto"}
PRICE = 3787


@pytest.fixture
def books(database: Database) -> Database:
    """Renewal is switched on for every brand in FR, and for none elsewhere."""
    for brand in ("ovh", "kimsufi", "soyoustart"):
        roll_out(database, brand, "FR")
    return database


def roll_out(
    database: Database, brand: str, subsidiary: str, starts_on: str = "2020-01-01"
) -> None:
    database.run(
        "INSERT INTO rollouts (brand, subsidiary, starts_on) VALUES (:b, :s, CAST(:d AS date))",
        b=brand, s=subsidiary, d=starts_on,
    )  # fmt: skip


def service(database: Database, due: date = DUE, **changes: Any) -> uuid.UUID:
    """A delivered service that will be renewed; returns its id."""
    subsidiary = changes.get("subsidiary", "FR")
    id = uuid.uuid4()
    row = {
        "id": id,
        "customer_id": "alice",
        "subsidiary": subsidiary,
        "plan": "site",
        "universe": "web",
        "brand": "ovh",
        "driver": "web",
        "configuration": "{}",
        "period_months": 1,
        "mode": "automatic",
        "state": "active",
        "desired": "active",
        "paid_periods": 3,
        "expires_at": local_midnight(due, ZONES[subsidiary]),
        "payment_method_id": method(database, changes.pop("card_until", None)),
        "agreed_version": 2,
    } | changes
    values = ", ".join(f":{name}" for name in row)
    database.run(f"INSERT INTO services ({', '.join(row)}) VALUES ({values})", **row)
    return id


def method(database: Database, last_day: date | None) -> uuid.UUID:
    """A saved payment method."""
    id = uuid.uuid4()
    database.run(
        "INSERT INTO customers (id, subsidiary, country, language, email)"
        " VALUES ('alice', 'FR', 'FR', 'fr', 'alice@example.com') ON CONFLICT DO NOTHING"
    )
    database.run(
        "INSERT INTO payment_methods (id, customer_id, token, expires_on)"
        " VALUES (:id, 'alice', :token, :day)",
        id=id, token=str(id), day=last_day,
    )  # fmt: skip
    return id


def fixed(
    database: Database,
    id: uuid.UUID,
    net: int,
    due: date = DUE,
    number: int = 4,
    currency: str | None = "EUR",
) -> None:
    """Fix the price of a renewal, as its first reminder does."""
    database.run(
        "INSERT INTO renewals (service_id, period_number, expires_on, net, currency)"
        " VALUES (:id, :number, :due, :net, :currency)",
        id=id,
        number=number,
        due=due,
        net=net,
        currency=currency,
    )


def forecasted(database: Database, today: date = TODAY, until: date = UNTIL, by: By = By.MONTH,
               **filters: Any) -> list[Row]:  # fmt: skip
    with database.engine("readonly").connect() as tx:
        return forecast(tx, today=today, until=until, by=by, **filters)


def reviewed(
    database: Database, month: date = date(2026, 10, 1), **filters: Any
) -> list[ReviewRow]:
    with database.engine("readonly").connect() as tx:
        return review(tx, month, **filters)


def snapshot(database: Database, today: date = TODAY) -> int:
    with database.engine("scheduler").begin() as tx:
        return take_snapshot(tx, today)


def counts(rows: list[Row]) -> dict[date | None, int]:
    found: dict[date | None, int] = {}
    for row in rows:
        found[row.start] = found.get(row.start, 0) + row.services
    return found


class TestDecision:
    @pytest.mark.parametrize(
        ("changes", "decision"),
        [
            ({}, "will_renew"),
            ({"state": "suspended", "desired": "suspended"}, "will_renew"),
            # The first day of charging is three days before the expiry.
            ({"card_until": DUE - timedelta(days=3)}, "will_renew"),
            ({"mode": "stop"}, "will_stop"),
            ({"mode": "stop", "agreed_version": 1, "payment_method_id": None}, "will_stop"),
            ({"agreed_version": 1}, "undecided_contract"),
            ({"agreed_version": None, "mode": "manual"}, "undecided_contract"),
            ({"mode": "manual"}, "undecided_manual"),
            ({"mode": "manual", "payment_method_id": None}, "undecided_manual"),
            ({"payment_method_id": None}, "undecided_payment"),
            ({"card_until": DUE - timedelta(days=4)}, "undecided_payment"),
            ({"subsidiary": "IE"}, "not_rolled_out"),
            ({"subsidiary": "IE", "mode": "stop"}, "not_rolled_out"),
        ],
    )
    def test_forecast_counts_a_service_by_its_customers_decision(
        self, books: Database, changes: dict[str, Any], decision: str
    ) -> None:
        service(books, **changes)

        assert forecasted(books) == [Row(date(2026, 10, 1), Decision(decision), "EUR", 1, PRICE)]

    def test_service_of_a_plan_without_a_contract_needs_no_agreement(self, books: Database) -> None:
        books.run("UPDATE plans SET contract = NULL WHERE code = 'site'")
        service(books, agreed_version=None)

        assert [row.decision for row in forecasted(books)] == [Decision.WILL_RENEW]

    def test_missing_contract_comes_before_a_missing_price(self, books: Database) -> None:
        service(books, period_months=7, agreed_version=1)

        (row,) = forecasted(books)

        assert (row.decision, row.services, row.net) == (Decision.UNDECIDED_CONTRACT, 1, 0)

    @pytest.mark.parametrize(
        ("starts_on", "decision"),
        [("2026-10-20", "will_renew"), ("2026-10-21", "not_rolled_out")],
    )
    def test_a_rollout_counts_from_its_day(
        self, books: Database, starts_on: str, decision: str
    ) -> None:
        roll_out(books, "ovh", "IE", starts_on)
        service(books, subsidiary="IE")

        assert [row.decision for row in forecasted(books)] == [Decision(decision)]

    @pytest.mark.parametrize(
        "changes",
        [
            {"state": "terminated", "desired": "absent"},
            {"desired": "absent"},
            {"state": "pending", "desired": "absent", "expires_at": None},
        ],
    )
    def test_ended_and_undelivered_services_do_not_fall_due(
        self, books: Database, changes: dict[str, Any]
    ) -> None:
        service(books, **changes)

        assert forecasted(books) == []


class TestMoney:
    def test_price_fixed_by_a_reminder_is_the_one_forecast(self, books: Database) -> None:
        fixed(books, service(books), 3000)
        service(books)

        (row,) = forecasted(books)

        assert (row.services, row.net) == (2, 3000 + PRICE)

    def test_price_fixed_for_an_earlier_period_does_not_count(self, books: Database) -> None:
        id = service(books)
        fixed(books, id, 3000, date(2026, 9, 20), number=3)

        assert forecasted(books)[0].net == PRICE

    def test_plan_off_sale_counts_at_its_last_price(self, books: Database) -> None:
        books.run("UPDATE prices SET on_sale = false")
        service(books, period_months=12)

        assert forecasted(books)[0].net == 40000

    def test_currencies_are_never_added_up(self, books: Database) -> None:
        books.run("""INSERT INTO subsidiaries SELECT 'CA', definition || '{"currency": "CAD",
                     "timezone": "America/Toronto"}' FROM subsidiaries WHERE code = 'FR'""")
        books.run("""INSERT INTO prices (plan, subsidiary, period_months, currency, setup, renewal)
                     VALUES ('site', 'CA', 1, 'CAD', 0, 5000)""")
        roll_out(books, "ovh", "CA")
        service(books)
        service(books, subsidiary="CA")

        assert [(r.currency, r.services, r.net) for r in forecasted(books)] == [
            ("CAD", 1, 5000),
            ("EUR", 1, PRICE),
        ]

    @pytest.mark.parametrize("due", [DUE, TODAY - timedelta(days=4)])
    def test_a_fixed_price_is_summed_in_the_currency_it_was_fixed_in(
        self, books: Database, due: date
    ) -> None:
        fixed(books, service(books, due), 3000, due, currency="GBP")
        fixed(books, service(books, due), 10, due)
        service(books, due)

        assert [(r.currency, r.services, r.net) for r in forecasted(books)] == [
            ("EUR", 2, 10 + PRICE),
            ("GBP", 1, 3000),
        ]

    def test_snapshot_and_review_keep_currencies_apart(self, books: Database) -> None:
        fixed(books, service(books), 3000, currency="GBP")
        service(books)
        snapshot(books, date(2026, 10, 1))

        assert [(r.what, r.currency, r.net) for r in reviewed(books)] == [
            (Decision.WILL_RENEW, "EUR", PRICE),
            (Outcome.OPEN, "EUR", PRICE),
            (Decision.WILL_RENEW, "GBP", 3000),
            (Outcome.OPEN, "GBP", 3000),
        ]


class TestBuckets:
    @pytest.mark.parametrize(
        ("by", "starts"),
        [
            (By.DAY, ["2026-10-04", "2026-10-05", "2026-10-31", "2026-11-01"]),
            (By.WEEK, ["2026-09-28", "2026-10-05", "2026-10-26", "2026-10-26"]),
            (By.MONTH, ["2026-10-01", "2026-10-01", "2026-10-01", "2026-11-01"]),
        ],
    )
    def test_a_service_is_in_the_bucket_of_its_local_day(
        self, books: Database, by: By, starts: list[str]
    ) -> None:
        for day in ("2026-10-04", "2026-10-05", "2026-10-31", "2026-11-01"):
            # 22:00 or 23:00 UTC of the day before
            service(books, date.fromisoformat(day))

        expected = {date.fromisoformat(start): starts.count(start) for start in starts}
        assert counts(forecasted(books, by=by)) == expected

    def test_each_subsidiary_has_its_own_midnight(self, books: Database) -> None:
        service(books, date(2026, 11, 1), subsidiary="FR")
        service(books, date(2026, 11, 1), subsidiary="IE")

        assert counts(forecasted(books)) == {date(2026, 11, 1): 2}

    def test_forecast_includes_today_and_excludes_its_end(self, books: Database) -> None:
        for day in (date(2026, 10, 1), date(2026, 10, 9), date(2026, 10, 10)):
            service(books, day)

        found = forecasted(books, date(2026, 10, 1), date(2026, 10, 10), By.DAY)

        assert counts(found) == {date(2026, 10, 1): 1, date(2026, 10, 9): 1}

    def test_expired_service_is_overdue_at_the_price_it_was_quoted(self, books: Database) -> None:
        late = service(books, TODAY - timedelta(days=1))
        fixed(books, late, 3000, TODAY - timedelta(days=1))
        service(books, TODAY - timedelta(days=20), state="suspended", desired="suspended")
        service(books, TODAY)

        assert forecasted(books, by=By.DAY) == [
            Row(None, Decision.WILL_RENEW, "EUR", 2, 3000 + PRICE),
            Row(TODAY, Decision.WILL_RENEW, "EUR", 1, PRICE),
        ]

    def test_overdue_service_with_an_expired_payment_method_cannot_be_charged(
        self, books: Database
    ) -> None:
        service(books, TODAY - timedelta(days=3), card_until=TODAY - timedelta(days=1))

        assert [r.decision for r in forecasted(books)] == [Decision.UNDECIDED_PAYMENT]

    def test_filters_narrow_the_forecast(self, books: Database) -> None:
        service(books)
        service(books, plan="server", universe="dedicated", brand="kimsufi")
        service(books, plan="vm", universe="cloud", brand="soyoustart")

        assert counts(forecasted(books)) == {date(2026, 10, 1): 3}
        assert len(forecasted(books, universe=Universe.CLOUD)) == 1
        assert counts(forecasted(books, brand="kimsufi")) == {date(2026, 10, 1): 1}
        assert forecasted(books, universe=Universe.CLOUD, brand="kimsufi") == []


class TestSnapshot:
    def test_one_snapshot_is_kept_a_day(self, books: Database) -> None:
        for due in (TODAY, DUE, DUE, TODAY + timedelta(days=91), TODAY + timedelta(days=92)):
            service(books, due)
        service(books, TODAY - timedelta(days=1))

        assert (snapshot(books), snapshot(books)) == (3, 0)
        assert snapshot(books, TODAY + timedelta(days=1)) == 3
        kept = books.all(
            "SELECT due_on, universe, brand, currency, decision, services, net FROM forecasts"
            " WHERE made_on = :day ORDER BY due_on", day=TODAY,
        )  # fmt: skip
        assert kept[1] == (DUE, "web", "ovh", "EUR", "will_renew", 2, 2 * PRICE)
        assert [row.due_on for row in kept] == [TODAY, DUE, TODAY + timedelta(days=91)]

    def test_day_with_nothing_due_has_no_snapshot(self, books: Database) -> None:
        assert snapshot(books) == 0

    def test_two_schedulers_at_the_same_moment_take_one_snapshot(self, books: Database) -> None:
        service(books)
        taken: list[int] = []
        with books.engine("scheduler").begin() as first:
            assert take_snapshot(first, TODAY) == 1
            second = threading.Thread(target=lambda: taken.append(snapshot(books)))
            second.start()
            waiting = (
                "SELECT count(*) FROM pg_locks"
                " WHERE relation = 'lock_snapshot'::regclass AND NOT granted"
            )
            while not books.value(waiting):
                pass
        second.join(30)

        assert taken == [0]
        assert books.value("SELECT count(*) FROM forecasts") == 1


class TestReview:
    def test_review_shows_the_forecast_beside_what_happened(self, books: Database) -> None:
        ids = [service(books) for _ in range(5)]
        stopped = service(books, mode="stop")
        for id in ids:
            fixed(books, id, 3000)
        snapshot(books, date(2026, 10, 1))
        books.run("UPDATE services SET paid_periods = 4, expires_at = expires_at + interval '31 d'"
                  " WHERE id = ANY(:ids)", ids=ids[:3])  # fmt: skip
        ended = "UPDATE services SET state = 'terminated', desired = 'absent' WHERE id = ANY(:ids)"
        books.run(ended, ids=[ids[3], stopped])
        service(books, date(2026, 11, 1))

        made = date(2026, 10, 1)
        assert reviewed(books) == [
            ReviewRow(made, Decision.WILL_RENEW, "EUR", 5, 15000),
            ReviewRow(made, Decision.WILL_STOP, "EUR", 1, PRICE),
            ReviewRow(made, Outcome.RENEWED, "EUR", 3, 9000),
            ReviewRow(made, Outcome.ENDED, "EUR", 2, 3000 + PRICE),
            ReviewRow(made, Outcome.OPEN, "EUR", 1, 3000),
        ]

    def test_service_on_its_way_to_termination_counts_as_ended(self, books: Database) -> None:
        service(books, desired="absent")

        assert [r.what for r in reviewed(books)] == [Outcome.ENDED]

    def test_review_takes_the_last_snapshot_before_the_month(self, books: Database) -> None:
        service(books)
        for day in (date(2026, 9, 1), date(2026, 9, 30), date(2026, 10, 2)):
            snapshot(books, day)

        assert {r.made_on for r in reviewed(books)} == {date(2026, 9, 30)}

    def test_review_ignores_a_snapshot_that_ends_before_the_month(self, books: Database) -> None:
        service(books)
        snapshot(books, date(2026, 7, 31))
        assert {r.made_on for r in reviewed(books)} == {None}

        snapshot(books, date(2026, 8, 1))
        assert {r.made_on for r in reviewed(books)} == {date(2026, 8, 1)}

    def test_snapshot_from_within_the_month_is_compared_with_the_rest_of_it(
        self, books: Database
    ) -> None:
        service(books)
        service(books, date(2026, 10, 3))
        snapshot(books, date(2026, 10, 5))

        assert [(r.what, r.services) for r in reviewed(books)] == [
            (Decision.WILL_RENEW, 1),
            (Outcome.OPEN, 1),
        ]

    def test_review_without_a_snapshot_shows_what_happened(self, books: Database) -> None:
        service(books)

        assert reviewed(books) == [ReviewRow(None, Outcome.OPEN, "EUR", 1, PRICE)]
        assert reviewed(books, date(2026, 11, 17)) == []

    def test_filters_narrow_both_sides_of_a_review(self, books: Database) -> None:
        service(books)
        fixed(books, service(books, plan="vm", universe="cloud", brand="soyoustart"), 100)
        snapshot(books, date(2026, 10, 1))

        for filters in ({"universe": Universe.CLOUD}, {"brand": "soyoustart"}):
            found = [(r.what, r.services, r.net) for r in reviewed(books, **filters)]
            assert found == [(Decision.WILL_RENEW, 1, 100), (Outcome.OPEN, 1, 100)]


class TestCommand:
    @pytest.fixture
    def cli(self, books: Database, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", books.url)

        def run(*words: str) -> Result:
            return CliRunner().invoke(command, words)

        return run

    @pytest.fixture
    def due(self, books: Database) -> date:
        """The day on which two services expire, soon after the real today."""
        due = (datetime.now(UTC).date() + timedelta(days=45)).replace(day=17)
        service(books, due)
        service(books, due, mode="stop")
        return due

    def test_people_get_a_table_with_totals(self, cli: Any, due: date) -> None:
        result = cli()

        assert result.exit_code == 0, result.output
        _, header, month, total = result.stdout.splitlines()
        assert header.split() == ["month", "will", "renew", "will", "stop", "all"]
        cells = ["1", "(37.87", "EUR)", "1", "(37.87", "EUR)", "2", "(75.74", "EUR)"]
        assert month.split() == [f"{due:%Y-%m}", *cells]
        assert total.split() == ["total", *cells]

    def test_programs_get_json_or_csv(self, cli: Any, due: date) -> None:
        documents = [json.loads(line) for line in cli("--by", "day", "--json").stdout.splitlines()]
        rows = list(csv.DictReader(cli("--by", "day", "--csv").stdout.splitlines()))

        assert documents[0] == {
            "start": due.isoformat(), "decision": "will_renew", "currency": "EUR", "services": 1,
            "net": "37.87", "suspended_by_operator": 0,
        }  # fmt: skip
        counts = ("services", "suspended_by_operator")
        assert [row | {name: int(row[name]) for name in counts} for row in rows] == documents

    def test_a_snapshot_is_taken_once_and_reviewed(self, cli: Any, due: date) -> None:
        assert "2 rows" in cli("--snapshot").stdout
        assert "nothing to add" in cli("--snapshot").stdout

        month = f"{due:%Y-%m}"
        shown = cli("--review", month).stdout
        assert f"{month}, as it was forecast on" in shown
        assert f"{month}, what happened" in shown
        found = [json.loads(line) for line in cli("--review", month, "--json").stdout.splitlines()]
        assert [(d["side"], d["what"], d["services"]) for d in found] == [
            ("forecast", "will_renew", 1),
            ("forecast", "will_stop", 1),
            ("happened", "open", 2),
        ]
        assert cli("--review", month, "--csv").stdout.startswith("made_on,side,what,")

    def test_command_says_when_nothing_is_due(self, cli: Any) -> None:
        assert cli("--brand", "ovh", "--universe", "telecom").stdout.strip().endswith(": none")
        assert "of which no forecast was kept: none" in cli("--review", "2026-10").stdout

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--brand", "nobody"], "there is no brand 'nobody'; there are kimsufi, ovh"),
            (["--until", "2020-01-01"], "--until 2020-01-01 is not after today"),
        ],
    )
    def test_impossible_option_is_a_one_line_error(
        self, cli: Any, words: list[str], said: str
    ) -> None:
        result = cli(*words)

        assert result.exit_code != 0
        assert said in str(result.exception)

    @pytest.mark.parametrize(
        "words",
        [
            ["--json", "--csv"],
            ["--snapshot", "--brand", "ovh"],
            ["--review", "2026-10", "--by", "day"],
            ["--review", "October"],
        ],
    )
    def test_options_that_exclude_each_other_are_refused(self, cli: Any, words: list[str]) -> None:
        assert cli(*words).exit_code == 2

    def test_role_readonly_can_forecast(
        self, books: Database, due: date, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = books.engine("readonly").url.set(drivername="postgresql")
        monkeypatch.setenv("AUTORENEW_DATABASE_URL", url.render_as_string(hide_password=False))

        result = CliRunner().invoke(command, [])

        assert result.exit_code == 0, result.output
        with books.engine("readonly").connect() as tx:
            assert tx.execute(text("SELECT count(*) FROM forecasts")).scalar_one() == 0
