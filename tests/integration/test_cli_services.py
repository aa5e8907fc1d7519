"""Commands of operators and of customers, on the command line."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autorenew.cli import main
from producers.intake.links import Links, Purpose
from tests.conftest import Database
from tests.integration.test_commands import delivered
from tests.integration.test_renewals import publish
from tests.support import given
from tests.support.given import line


@pytest.fixture
def bare_cli(database: Database, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The commands, on a database without a fleet."""
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", database.url)

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


@pytest.fixture
def cli(bare_cli: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same on a database that lives on a virtual clock."""
    monkeypatch.setenv("AUTORENEW_CLOCK", "virtual")
    return bare_cli


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(text) for text in result.stdout.splitlines()]


class TestOnTheCommandLine:
    def test_services_are_listed_and_shown_with_what_is_next(self, life: Any, cli: Any) -> None:
        world = life()
        first = world.order(line("site"), line("vm", quantity=2))

        listed = rows(cli("service", "list", "--customer", "alice", "--json"))
        (shown,) = rows(cli("service", "show", first.id, "--json"))

        assert sorted(row["plan"] for row in listed) == ["site", "vm", "vm"]
        assert {row["next_step"] for row in listed} == {"remind"}
        assert {row["period"] for row in listed} == {"P1M"}
        assert shown["service"] == str(first.id)
        assert shown["expires_on"] == world.expiry(first).isoformat()
        assert shown["renewing_now"].startswith("1 x P1M for 37.87 EUR net, until ")
        assert "service.delivered" in [event["name"] for event in shown["history"]]
        people = cli("service", "show", first.id)
        assert people.exit_code == 0
        assert f"service              {first.id}" in people.stdout
        assert "service.delivered" in people.stdout
        unknown = cli("service", "list", "--customer", "nobody")
        assert (unknown.exit_code, unknown.stdout) == (2, "")
        assert "there is no customer 'nobody'" in unknown.stderr
        unknown = cli("service", "show", uuid.uuid4())
        assert unknown.exit_code == 2
        assert "there is no delivered service" in unknown.stderr

    def test_paying_late_says_before_how_many_periods_it_buys(self, life: Any, cli: Any) -> None:
        world = life(silence_seconds=86_400 * 90.0)
        first = world.order()
        world.click("mode", mode="manual")
        world.fleet.leap(first.expires_at + timedelta(days=40) - world.fleet.clock.now())
        world.fleet.settle(30)

        (shown,) = rows(cli("service", "show", first.id, "--json"))

        assert shown["renewing_now"].startswith("2 x P1M for 75.74 EUR net, until ")

    def test_each_command_is_done_once_and_says_so(self, life: Any, cli: Any) -> None:
        world = life()
        first = world.order()
        publish(world, 3)
        cases: list[tuple[object, ...]] = [
            ("stop", first.id),
            ("resume", first.id),
            ("accept", "alice", "terms"),
            ("payment-method", "alice", "tok-new", "--expires", "2035-12"),
            ("payment-method", "alice", "tok-one", "--service", first.id),
            ("renew", first.id, "--expires-on", world.expiry(first).isoformat()),
        ]
        for words in cases:
            once, twice = cli("service", *words), cli("service", *words)
            assert (once.exit_code, once.stdout.strip()) == (0, "done"), words
            assert (twice.exit_code, twice.stdout.strip()) == (0, "no change"), words
        world.fleet.settle(30)

        assert world.service().paid_periods == 2
        again = cli("service", "renew", first.id, "--expires-on", world.expiry(first).isoformat())
        assert again.stdout.strip() == "no change"
        world.clean()

    def test_the_mode_is_changed(self, bare_cli: Any, database: Database) -> None:
        (service,) = delivered(database)
        for mode in ("manual", "stop", "automatic"):
            once = bare_cli("service", "mode", mode, service)
            assert (once.exit_code, once.stdout.strip()) == (0, "done"), once.stderr
            assert database.value("SELECT mode FROM services") == mode

    def test_several_services_are_renewed_together(self, life: Any, cli: Any) -> None:
        world = life()
        world.order(line("site"), line("vm"))

        result = cli("service", "renew", *(s.id for s in world.services()), "--json")
        world.fleet.settle(30)

        assert rows(result) == [{"verdict": "accepted", "repeated": False, "problems": []}]
        assert {s.paid_periods for s in world.services()} == {2}

    def test_refused_command_names_the_problem_and_ends_with_1(self, life: Any, cli: Any) -> None:
        world = life()
        world.order()
        world.send(given.order("k-2", customer="bob"))
        mine, theirs = sorted(world.services(), key=lambda s: s.customer_id)

        result = cli("service", "stop", mine.id, theirs.id)
        as_json = cli("service", "stop", mine.id, theirs.id, "--json")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("refused: service_unknown at services.1: alice has no ")
        assert as_json.exit_code == 1
        (answer,) = rows(as_json)
        assert (answer["verdict"], answer["problems"][0]["code"]) == ("refused", "service_unknown")
        assert {s.mode for s in world.services()} == {"automatic"}

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("stop", str(uuid.uuid4())), "there is no service"),
            (("renew", str(uuid.uuid4())), "there is no service"),
            (("accept", "alice", "nothing"), "there is no contract 'nothing'"),
            (("stop", "x"), "not a valid UUID"),
            (("mode", "never", str(uuid.uuid4())), "'never' is not one of"),
            (("stop",), "Missing argument"),
        ],
    )
    def test_command_that_cannot_be_tried_ends_with_2(
        self, bare_cli: Any, words: Any, said: str
    ) -> None:
        result = bare_cli("service", *words)
        assert result.exit_code == 2
        assert said in result.stderr

    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("accept", "stranger", "terms"), "customer_unknown"),
            (("accept", "alice", "terms", "--version", "1"), "contract_outdated"),
            (("payment-method", "stranger", "tok"), "customer_unknown"),
            (
                ("payment-method", "alice", "tok", "--expires", "12/2030"),
                "rejected: payment_method_expires_invalid at",
            ),
        ],
    )
    def test_unknown_customer_or_outdated_contract_ends_with_1(
        self, bare_cli: Any, database: Database, words: Any, code: str
    ) -> None:
        database.place(given.order())
        result = bare_cli("service", *words)
        assert result.exit_code == 1
        assert code in result.stderr

    def test_click_on_a_link_is_carried_out(
        self, life: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AUTORENEW_LINK_BASE_URL", "https://example.com")
        monkeypatch.setenv("AUTORENEW_LINK_SECRET", "a secret of this test alone")
        world = life()
        first = world.order()
        links = Links("https://example.com", "a secret of this test alone")
        stop = {"command": "stop", "customer": "alice", "services": [str(first.id)]}
        url = links.url(Purpose.STOP, stop, world.fleet.clock.now())

        once, twice = cli("service", "click", url), cli("service", "click", url)

        assert [once.stdout.strip(), twice.stdout.strip()] == ["done", "no change"]
        assert world.service().mode == "stop"
        world.click("resume")
        world.click("stop")
        world.click("resume")
        late = cli("service", "click", url)
        assert (late.exit_code, world.service().mode) == (1, "automatic")
        assert "refused: link_outdated at services.0: its mode was changed at" in late.stderr
        world.pass_days(91)
        old = cli("service", "click", url)
        assert (old.exit_code, "too old" in old.stderr) == (2, True)
        changed = cli("service", "click", url[:-1])
        assert changed.exit_code == 2
        assert "not valid" in changed.stderr

    def test_refused_command_of_the_command_line_is_kept_under_its_own_door(
        self, bare_cli: Any, database: Database
    ) -> None:
        (service,) = delivered(database)
        bare_cli("service", "renew", service, "--expires-on", "2099-01-01")

        (kept,) = database.all("SELECT upstream, door, code FROM rejected_documents")
        assert kept == ("cli", "cli", "expiry_unknown")


class TestRollout:
    def test_rollout_is_listed_set_and_removed(self, life: Any, cli: Any) -> None:
        world = life(brands=[])
        world.order(line("site"), line("server"))
        listed = rows(cli("rollout", "list", "--json"))
        assert listed == [
            {"brand": brand, "subsidiary": "FR", "starts_on": None, "services": 1}
            for brand in ("kimsufi", "ovh")
        ]
        assert {s.next_step for s in world.services()} == {None}

        result = cli("rollout", "set", "kimsufi", "FR", "2020-01-01", "--as", "eve")
        world.fleet.settle(30)

        assert result.exit_code == 0
        assert "renewal is on for kimsufi in FR from 2020-01-01" in result.stdout
        on = {row["brand"]: row["starts_on"] for row in rows(cli("rollout", "list", "--json"))}
        assert on == {"kimsufi": "2020-01-01", "ovh": None}
        assert {s.plan: s.next_step for s in world.services()} == {"server": "remind", "site": None}
        removed = cli("rollout", "remove", "kimsufi", "FR", "--json", "--note", "ticket 4711")
        assert rows(removed) == [
            {"brand": "kimsufi", "subsidiary": "FR", "starts_on": None, "before": "2020-01-01"}
        ]
        world.fleet.settle(30)
        assert {s.next_step for s in world.services()} == {None}
        assert "no change" in cli("rollout", "remove", "kimsufi", "FR").stdout
        switched_on, switched_off = rows(cli("rollout", "show", "kimsufi", "FR", "--json"))
        assert (switched_on["event"], switched_on["by"]) == ("rollout.set", "eve")
        assert (switched_off["event"], switched_off["because"]) == (
            "rollout.removed", "ticket 4711",
        )  # fmt: skip
        assert "none" in cli("rollout", "show", "ovh", "FR").stdout
        assert cli("rollout", "show", "kimsufy", "FR").exit_code == 2
        for misspelt in (("kimsufy", "FR"), ("kimsufi", "FRA")):
            refused = cli("rollout", "remove", *misspelt)
            assert (refused.exit_code, refused.stdout) == (2, "")
            assert "there are" in refused.stderr
        world.clean()

    def test_rollout_on_a_later_day_waits_for_it(self, life: Any, cli: Any) -> None:
        world = life(brands=[])
        first = world.order()
        day = world.expiry(first) - timedelta(days=10)
        assert cli("rollout", "set", "ovh", "FR", day.isoformat()).exit_code == 0
        world.fleet.settle(30)
        assert world.service().next_step == "decide"

        world.pass_until(first, -10.1)
        assert world.mails() == []
        world.pass_until(first, -9.1)
        assert len(world.mails()) == 1
        # Charged seven days after that e-mail, sent at 08:00 on the first day.
        world.pass_until(first, -2.9)
        assert world.service().paid_periods == 1
        world.pass_until(first, -2.5)
        assert world.service().paid_periods == 2

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("ovh", "XX", "2027-01-01"), "there is no subsidiary 'XX'"),
            (("other", "FR", "2027-01-01"), "there is no brand 'other'"),
            (("ovh", "FR", "tomorrow"), "does not match the format"),
        ],
    )
    def test_unknown_brand_or_subsidiary_cannot_be_switched_on(
        self, bare_cli: Any, words: tuple[str, ...], said: str
    ) -> None:
        result = bare_cli("rollout", "set", *words)
        assert result.exit_code == 2
        assert said in result.stderr


class TestLanes:
    def test_lanes_of_renewals_are_listed_before_they_hold_a_task(self, bare_cli: Any) -> None:
        listed = {row["lane"]: row["queue"] for row in rows(bare_cli("lanes", "list", "--json"))}
        expected = {
            "gateway": "billing", "destructive": "billing", "renewals": "billing",
            "mail": "reminders",
        }  # fmt: skip
        assert listed.items() >= expected.items()

    def test_a_paused_gateway_holds_charges_and_goes_on_when_resumed(
        self, life: Any, cli: Any
    ) -> None:
        world = life()
        first = world.order()
        assert cli("lanes", "pause", "gateway", "--reason", "bank holiday").exit_code == 0

        world.pass_until(first, -2.9)

        assert world.service().paid_periods == 1
        lane = next(r for r in rows(cli("lanes", "list", "--json")) if r["lane"] == "gateway")
        assert (lane["tasks"], lane["reason"]) == (1, "bank holiday")
        resumed = cli("lanes", "resume", "gateway").stdout.splitlines()
        assert "bank holiday" in resumed[0]
        assert resumed[1:] == ["gateway is resumed"]
        assert cli("lanes", "resume", "gateway").stdout.strip() == "gateway was not paused"
        world.fleet.settle(30)
        assert world.service().paid_periods == 2
        world.clean()

    def test_service_stopped_while_its_charge_waited_is_not_charged(
        self, life: Any, cli: Any
    ) -> None:
        world = life()
        first = world.order(line(quantity=2))
        cli("lanes", "pause", "gateway", "--reason", "test")
        world.pass_until(first, -2.9)
        one, other = world.services()

        world.click("stop", one)
        cli("lanes", "resume", "gateway")
        world.fleet.settle(30)

        assert {s.id: s.paid_periods for s in world.services()} == {one.id: 1, other.id: 2}
        world.clean()

    def test_unknown_lane_is_an_error(self, bare_cli: Any) -> None:
        result = bare_cli("lanes", "pause", "nonsense", "--reason", "x")
        assert result.exit_code == 2
        assert "there is no lane 'nonsense'" in result.stderr
