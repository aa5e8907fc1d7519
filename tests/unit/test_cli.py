"""The command line, as far as it goes without a database or a broker."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import urllib3
from click.testing import CliRunner, Result

from autorenew.cli import COMMANDS, SECTIONS, main
from autorenew.cli.progress import rows_done
from autorenew.local.ports import free_port
from monitoring import metrics
from schemas.catalogue import BUNDLED
from schemas.catalogue.ovh import read_ovh
from schemas.settings import Settings, load_settings

SUBJECT = "6f0a1e5c-2f5b-5d0e-9c53-6a7e0b1d9a42"
NOWHERE = {"AUTORENEW_DATABASE_URL": "postgresql://api@127.0.0.1:1/none?connect_timeout=1"}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AUTORENEW_"):
            monkeypatch.delenv(name)


def run(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, [str(argument) for argument in arguments])


def one_line(result: Result) -> str:
    """The line on standard error; checks that it is the only one and that the exit code is 2."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("autorenew: ")
    return line.removeprefix("autorenew: ")


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _commands(inner, (*path, name))


ALL = list(_commands(main))


def _command(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        inner = command.get_command(click.Context(command), name)
        assert inner is not None
        command = inner
    return command


class TestHelp:
    def test_help_lists_the_documented_commands(self) -> None:
        promised = {
            "demo", "up", "migrate", "intake", "relay", "scheduler", "worker", "simulator", "audit",
            "broker setup", "catalogue load", "catalogue check", "catalogue import-ovh",
            "order place", "order show", "rejected list", "failed list", "failed retry",
            "failed cancel", "lanes list", "lanes pause", "lanes resume",
            "service list", "service show", "service stop", "service resume", "service mode",
            "service renew", "service accept", "service payment-method", "service click",
            "service import", "rollout list", "rollout set", "rollout remove", "forecast",
            "reconcile gateway",
        }  # fmt: skip
        assert promised <= {" ".join(path) for path in ALL}

    @pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "autorenew")
    def test_every_command_explains_itself(self, path: tuple[str, ...]) -> None:
        result = run(*path, "--help")
        assert result.exit_code == 0
        usage, _, text = result.output.partition("\n\n")
        assert usage.startswith("Usage: ")
        assert text.strip()
        assert not text.lstrip().startswith("Options:"), "it does not say what it does"

    @pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "autorenew")
    def test_help_fits_a_terminal_of_80_columns_and_is_not_cut_off(
        self, path: tuple[str, ...]
    ) -> None:
        lines = run(*path, "--help", COLUMNS="80").output.splitlines()
        cut_off = [line for line in lines if line.endswith("...") and "Usage" not in line]
        assert [line for line in lines if len(line) > 80] + cut_off == []

    def test_every_option_is_explained(self) -> None:
        unexplained = []
        for path in ALL:
            command = _command(path)
            for option in command.params:
                if isinstance(option, click.Option) and not option.help:
                    unexplained.append((*path, *option.opts))
                if "%" in option.make_metavar(click.Context(command)):
                    unexplained.append((*path, option.name, "a date of strftime"))
        assert unexplained == []

    def test_help_lists_each_command_under_one_heading(self) -> None:
        listed = [name for names in SECTIONS.values() for name in names]
        assert sorted(listed) == sorted(COMMANDS)

    def test_list_of_commands_is_complete(self) -> None:
        assert [path[0] for path in ALL if len(path) == 1] == list(COMMANDS)

    def test_version_is_printed(self) -> None:
        result = run("--version")
        assert result.exit_code == 0
        assert "autorenew" in result.output or "version" in result.output

    @pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["order", "nonsense"]])
    def test_unknown_command_or_option_is_an_error(self, arguments: list[str]) -> None:
        result = run(*arguments)
        assert result.exit_code == 2
        assert "nonsense" in result.stderr


class TestMissingSettings:
    @pytest.mark.parametrize(
        "arguments",
        [
            "migrate", "order place -", "order show k", "rejected list", "failed list",
            "failed retry --all", f"failed retry {SUBJECT}", f"failed cancel --yes {SUBJECT}",
            "lanes list", "lanes pause x --reason y", "lanes resume x", "audit",
            "catalogue list", "catalogue load --bundled",
            f"catalogue import-ovh {BUNDLED / 'ovh-eco-IE.json.gz'}",
            "service list --customer c", f"service show {SUBJECT}", f"service stop {SUBJECT}",
            f"service resume {SUBJECT}", f"service mode manual {SUBJECT}",
            f"service renew {SUBJECT}", "service accept c terms", "service payment-method c tok",
            "rollout list", "rollout set ovh FR 2026-03-02", "rollout remove ovh FR", "forecast",
            "scheduler", "reconcile gateway",
        ],
    )  # fmt: skip
    def test_missing_database_setting_is_one_line_that_names_the_variable(
        self, arguments: str
    ) -> None:
        line = one_line(run(*arguments.split()))
        assert line.startswith("AUTORENEW_DATABASE_URL is not set")

    @pytest.mark.parametrize("arguments", ["broker setup", "intake", "relay", "worker orders"])
    def test_missing_broker_setting_is_one_line_that_names_the_variable(
        self, arguments: str
    ) -> None:
        line = one_line(run(*arguments.split()))
        assert line.startswith("AUTORENEW_BROKER_URL is not set")

    # What its queue needs beside it is said once the database has been asked for its clock.
    @pytest.mark.parametrize("queue", ["orders", "billing", "reminders", "web"])
    def test_a_worker_needs_a_database_whatever_its_queue(self, queue: str) -> None:
        result = run("worker", queue, AUTORENEW_BROKER_URL="amqp://127.0.0.1:1")
        assert one_line(result).startswith("AUTORENEW_DATABASE_URL is not set")

    @pytest.mark.parametrize("variable", ["LINK_BASE_URL", "LINK_SECRET"])
    def test_click_on_a_link_needs_the_settings_of_links(self, variable: str) -> None:
        links = {"LINK_BASE_URL": "https://my.example.com", "LINK_SECRET": "what signs the links"}
        known = {f"AUTORENEW_{name}": value for name, value in links.items() if name != variable}
        line = one_line(run("service", "click", "https://my.example.com/do/x", **known))
        assert line.startswith(f"AUTORENEW_{variable} is not set")

    def test_wrong_setting_is_a_one_line_error(self) -> None:
        line = one_line(run("audit", AUTORENEW_BATCH="many"))
        assert line.startswith("AUTORENEW_BATCH: ")

    @pytest.mark.parametrize(
        ("arguments", "variable", "value"),
        [
            ("catalogue check --bundled", "AUTORENEW_LOG_LEVEL", "noise"),
            ("audit", "AUTORENEW_DATABASE_URL", "postgresql://h:port/x"),
            ("broker setup", "AUTORENEW_BROKER_URL", "amqp://h:port"),
            ("worker billing", "AUTORENEW_GATEWAY_URL", "http://h:port"),
            ("up", "AUTORENEW_METRICS_PORT", "99999"),
            ("migrate", "AUTORENEW_ROLE_PASSWORDS", "not json"),
            ("relay", "AUTORENEW_SHUTDOWN_SECONDS", "20"),
        ],
    )
    def test_wrong_setting_is_a_one_line_error_for_every_command(
        self, arguments: str, variable: str, value: str
    ) -> None:
        line = one_line(run(*arguments.split(), **{variable: value}))
        assert line.startswith(variable)

    def test_unknown_queue_is_a_one_line_error(self) -> None:
        result = run("worker", "nonsense", AUTORENEW_BROKER_URL="amqp://127.0.0.1:1")
        assert one_line(result).startswith("no queue nonsense; there are orders, billing, ")

    def test_unknown_database_role_is_a_one_line_error(self) -> None:
        result = run("migrate", AUTORENEW_ROLE_PASSWORDS='{"nobody": "hunter2 of nobody"}')
        line = one_line(result)
        assert line.startswith("AUTORENEW_ROLE_PASSWORDS: no role nobody; there are api, ")
        assert "hunter2" not in line


class TestAwayFromHome:
    @pytest.mark.parametrize("arguments", ["audit", "order show k", "failed list"])
    def test_unreachable_database_is_a_one_line_error(self, arguments: str) -> None:
        assert "database" in one_line(run(*arguments.split(), **NOWHERE))

    def test_unreachable_broker_is_a_one_line_error(self) -> None:
        result = run("broker", "setup", AUTORENEW_BROKER_URL="amqp://127.0.0.1:1")
        assert "broker" in one_line(result)


class TestCatalogueCheck:
    def test_bundled_catalogue_is_valid(self) -> None:
        result = run("catalogue", "check", "--bundled")
        assert result.exit_code == 0
        plans, contracts = result.output.split(" plans, ")
        assert int(plans) > 150
        assert contracts.endswith("contracts: valid\n")

    def test_folder_and_files_can_be_checked(self) -> None:
        assert run("catalogue", "check", BUNDLED).exit_code == 0
        files = sorted(BUNDLED.glob("*.toml"))
        assert run("catalogue", "check", *files).exit_code == 0

    def test_each_problem_is_a_line_that_names_file_plan_and_field(self, tmp_path: Path) -> None:
        # Given a plan with two mistakes, and a file that is none
        plan = tmp_path / "plans.toml"
        plan.write_text('[[plan]]\ncode = "x"\nname = 5\nuniverse = "web"\nbrand = "b"\n')
        # When
        result = run("catalogue", "check", plan, tmp_path / "missing.toml")
        # Then
        assert result.exit_code == 2
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 4
        assert all(line.startswith("autorenew: ") for line in lines)
        assert sum("plans.toml: plan x: " in line for line in lines) == 3
        assert any(": name: " in line for line in lines)
        assert any("missing.toml: no such file" in line for line in lines)

    def test_files_that_are_valid_alone_must_fit_together(self) -> None:
        result = run("catalogue", "check", BUNDLED / "web.toml")
        assert result.exit_code == 2
        assert "contract: 'web' is not defined" in result.stderr

    @pytest.mark.parametrize("content", [b"\xff", b"[[plan", b"x = 1", b"[" * 10_000])
    def test_hostile_file_is_reported_without_a_traceback(
        self, tmp_path: Path, content: bytes
    ) -> None:
        path = tmp_path / "hostile.toml"
        path.write_bytes(content)
        result = run("catalogue", "check", path)
        assert result.exit_code == 2
        assert result.stderr.startswith("autorenew: hostile.toml: ")
        assert "Traceback" not in result.output

    @pytest.mark.parametrize("arguments", [[], ["--bundled", str(BUNDLED)]])
    def test_check_needs_paths_or_the_sample(self, arguments: list[str]) -> None:
        result = run("catalogue", "check", *arguments)
        assert result.exit_code == 2
        assert "name PATHS, or --bundled" in result.stderr


class TestImportOvh:
    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\x1f\x8b", b"{}"])
    def test_hostile_file_is_a_one_line_error(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "hostile.json"
        path.write_bytes(content)
        assert one_line(run("catalogue", "import-ovh", path)).startswith("hostile.json: ")

    def test_price_with_too_many_digits_is_an_error_that_names_plan_and_pricing(
        self, tmp_path: Path
    ) -> None:
        document = read_ovh(BUNDLED / "ovh-eco-IE.json.gz")
        document["plans"] = document["plans"][:1]
        pricing = next(p for p in document["plans"][0]["pricings"] if p["mode"] == "default")
        pricing["price"] = 1
        path = tmp_path / "ovh.json"
        path.write_text(json.dumps(document))
        line = one_line(run("catalogue", "import-ovh", path))
        assert line.startswith("ovh.json: plan 21rise011-sgp: pricing default ")

    def test_missing_catalogue_file_is_a_one_line_error(self, tmp_path: Path) -> None:
        assert "No such file" in one_line(run("catalogue", "import-ovh", tmp_path / "none.json"))


class TestSimulator:
    @pytest.mark.parametrize(
        "content",
        [
            b"{", b"5", b'{"fault": "error"}', b'[{"fault": "explode"}]', b"\xff", b"[[]]",
            b"[" * 100_000, b'[{"fault": "slow", "seconds": "x"}]',
            b'[{"fault": "slow", "plan": 5}]',
        ],
    )  # fmt: skip
    def test_invalid_fault_rules_are_a_one_line_error(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "rules.json"
        path.write_bytes(content)
        assert one_line(run("simulator", "--faults", path)).startswith("--faults: ")

    def test_missing_rules_file_is_a_one_line_error(self, tmp_path: Path) -> None:
        assert one_line(run("simulator", "--faults", tmp_path / "none")).startswith("--faults: ")

    def test_unusable_store_is_a_one_line_error(self, tmp_path: Path) -> None:
        result = run("simulator", "--port", "0", "--store", tmp_path)
        assert one_line(result).startswith("--store ")

    @pytest.mark.parametrize("port", ["-1", "65536", "http"])
    def test_port_out_of_range_is_refused(self, port: str) -> None:
        result = run("simulator", "--port", port)
        assert result.exit_code == 2
        assert port in result.stderr


class TestPlace:
    def test_missing_order_file_is_refused(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.ndjson", tmp_path):
            result = run("order", "place", path)
            assert result.exit_code == 2
            assert str(path) in result.stderr


class TestMetrics:
    """Every process that stays serves them, and says where."""

    WHERE = re.compile(r"metrics on (http://127\.0\.0\.1:(\d+)/metrics)")

    def where(self, caplog: pytest.LogCaptureFixture, settings: Settings) -> str:
        with caplog.at_level("INFO", "monitoring.metrics"):
            metrics.serve(settings)
        (line,) = caplog.messages
        found = self.WHERE.fullmatch(line)
        assert found is not None
        response = urllib3.request("GET", found[1], retries=False)
        assert b"autorenew_" in response.data
        return found[2]

    def test_metrics_are_served_on_a_free_port_if_none_is_set(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert int(self.where(caplog, load_settings())) > 0

    def test_metrics_are_served_on_the_port_that_is_set(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        port = free_port()
        assert int(self.where(caplog, load_settings(metrics_port=port))) == port


class TestFailed:
    def test_retry_needs_subjects_or_all(self) -> None:
        for arguments in ([], ["--all", SUBJECT]):
            result = run("failed", "retry", *arguments)
            assert result.exit_code == 2
            assert "say --all" in result.stderr

    def test_saying_how_a_payment_ended_asks_for_confirmation(self) -> None:
        words = ["failed", "settle", SUBJECT, "--not-taken"]
        result = CliRunner().invoke(main, words, input="n\n")
        assert result.exit_code == 1
        assert "Is that so in the books of the gateway" in result.output

    @pytest.mark.parametrize("said", ["", "  ", "\x1b[2J"])
    def test_who_and_why_say_something(self, said: str) -> None:
        for option in ("--by", "--because"):
            words = ["failed", "retry", "--all", option, said]
            assert run(*words).exit_code == 2, option


class TestInterrupted:
    @pytest.fixture
    def command(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """A command that somebody presses Ctrl-C at, after two batches of rows."""

        @click.command()
        def seals() -> None:
            with rows_done("placing", "place it again") as advance:
                advance(1000)
                advance(500)
                raise KeyboardInterrupt

        monkeypatch.setattr("autorenew.cli.seals.seals", seals)
        return "seals"

    def test_exit_code_is_that_of_ctrl_c_and_not_that_of_problems(self, command: str) -> None:
        assert run(command).exit_code == 130

    def test_exit_code_at_a_question_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def ctrl_c(_prompt: str) -> str:
            raise KeyboardInterrupt

        @click.command()
        def seals() -> None:
            click.confirm("Give 1 task up?", abort=True)

        monkeypatch.setattr("autorenew.cli.seals.seals", seals)
        monkeypatch.setattr("click.termui.visible_prompt_func", ctrl_c)
        with pytest.raises(SystemExit) as ended:
            main(["seals"], prog_name="autorenew")
        assert ended.value.code == 130
        assert run("seals").exit_code == 1  # no input, as from a no

    def test_says_how_far_it_was_and_what_to_do(self, command: str) -> None:
        assert run(command).stderr.splitlines() == [
            "placing: interrupted after 1500 rows; place it again", "autorenew: interrupted"
        ]  # fmt: skip


class TestOutput:
    """Of a command whose standard output takes nothing."""

    @pytest.mark.parametrize(("to", "code"), [(">/dev/full", 2), (">&-", 0)])
    def test_that_takes_nothing_is_no_traceback(self, to: str, code: int) -> None:
        words = f'exec "$0" -m autorenew catalogue check --bundled {to}'

        ended = subprocess.run(
            ["bash", "-c", words, sys.executable], capture_output=True, text=True, timeout=60
        )

        assert ended.returncode == code
        assert "Traceback" not in ended.stderr
        assert code == 0 or "autorenew: cannot write: No space left on device" in ended.stderr
