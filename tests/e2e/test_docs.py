"""The documentation is true and complete: commands, settings, metrics, links, examples."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import get_args

import click
import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from pydantic_core import to_jsonable_python

from autorenew.catalogues import bundled
from autorenew.cli import main
from monitoring import audit, metrics
from monitoring.exporter.families import FAILED_COLLECTIONS, FAMILIES
from monitoring.forecast import Decision, Outcome
from producers import failpoints, topology
from producers.imports import rows as imported_rows
from producers.intake.validation import problems_of
from producers.ledger import GUARDED_LANES
from producers.steps import QUEUES
from schemas.catalogue import BUNDLED, load
from schemas.messages import CommandDocument, CustomerDocument, LineDocument, OrderDocument, parse
from schemas.reasons import REASONS, FailureClass
from schemas.rules.lifecycle import Step
from schemas.rules.policies import DEFAULT_POLICY
from schemas.secret_files import FROM_FILES
from schemas.settings import Settings
from schemas.tables import ROLES
from schemas.values import RenewalMode
from simulator.faults import KINDS, Faults

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted(DOCS.rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
COMMANDS = get_args(get_args(CommandDocument)[0])
PACKAGES = ("autorenew", "monitoring", "producers", "schemas", "simulator", "workers")

# Words in capitals that stand for something of a certain form.
STANDING_FOR = {
    "SERVICE": "4fe769c4-ead1-5229-bb05-0a94e6c3c81e",
    "SUBJECT": "4fe769c4-ead1-5229-bb05-0a94e6c3c81e",
    "FILE": str(DOCS / "examples/orders.ndjson"),
    "DAY": "2026-12-01",
    "MODE": "manual",
}

each_page = pytest.mark.parametrize("page", PAGES, ids=IDS)


def fences(page: Path, language: str) -> Iterator[str]:
    """The blocks of a page in this language, their continued lines joined."""
    for found, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S):
        if found == language:
            yield block.replace("\\\n", " ")


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every ``autorenew …`` in a page's shell blocks and inline code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    lines = [line for block in fences(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(autorenew [^`…]+)`", text)
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.wordchars += "~-./*?=:@%,+${}"
        command: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set(";()<>|&"):
                if (arguments := _after_autorenew(command)) is not None:
                    yield arguments
                command = []
            else:
                command.append(token)


def _after_autorenew(command: list[str]) -> list[str] | None:
    for place, word in enumerate(command):
        if word.split("/")[-1] == "autorenew":
            return command[place + 1 :]
    return None


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def rows(page: Path) -> list[list[str]]:
    """The cells of every table row of a page."""
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.read_text().splitlines()
        if line.startswith("|")
    ]


def first_cells(page: Path) -> set[str]:
    """All words in code style of the first cells of a page's tables."""
    return {word for row in rows(page) for word in re.findall(r"`([^`]+)`", row[0])}


def sources() -> str:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return "\n".join(file.read_text() for file in files)


@each_page
def test_every_command_is_accepted_by_the_command_line(page: Path) -> None:
    for arguments in commands(page):
        _parse(arguments)


def _parse(arguments: list[str]) -> None:
    command: click.Command = main
    context = click.Context(main, info_name="autorenew")
    left = [STANDING_FOR.get(argument, argument) for argument in arguments]
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        found = command.get_command(context, left.pop(0))
        assert found is not None, arguments
        command = found
    if isinstance(command, click.Group):
        assert left in ([], ["--help"]), arguments  # the name of a group, in a sentence
        return
    if any(parameter.name == "yes" for parameter in command.params):
        left.append("--yes")  # which is asked for otherwise
    if not left and any(parameter.required for parameter in command.params):
        return  # the name of a command, in a sentence
    try:
        command.make_context(command.name, left, parent=context)
    except click.UsageError as error:
        pytest.fail(f"autorenew {shlex.join(arguments)}: {error.format_message()}")


def test_commands_are_found_in_the_pages() -> None:
    quickstart = list(commands(DOCS / "quickstart.md"))

    assert ["order", "place", "docs/examples/orders.ndjson"] in quickstart
    assert ["worker", "web", "dedicated", "cloud", "telecom", "--processes", "2"] in quickstart


@each_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    shell = "\n".join(fences(page, "sh"))
    named = set(re.findall(r"^make (\w+)", shell, re.M))
    named |= set(re.findall(r"`make (\w+)`", page.read_text()))

    assert named <= targets


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


@each_page
def test_every_file_of_the_project_that_is_named_exists(page: Path) -> None:
    folders = "|".join((*PACKAGES, "benchmarks", "docs", "requirements", "tests"))
    for path in re.findall(rf"(?<![\w./])((?:{folders})/[\w./*-]*\w)", page.read_text()):
        matches = ROOT.glob(path) if "*" in path else iter([ROOT / path])
        assert any(file.exists() for file in matches), path


def test_every_name_that_a_change_touches_is_in_its_file() -> None:
    """``NAME`` in ``path``, in the architecture: it is defined there."""
    named = 0
    names = r"((?:`\w[\w.]*`(?:, | and | or |; )?)+)"
    for words, path in re.findall(
        rf"{names} (?:in|of) `([^`*]+/[^`*]+\.(?:py|sql))`", (ROOT / "ARCHITECTURE.md").read_text()
    ):
        for name in (word.rpartition(".")[2] for word in re.findall(r"`([^`]+)`", words)):
            definition = rf"^\s*(?:async def|def|class|CREATE (?:OR REPLACE )?FUNCTION) {name}\b"
            value = rf"^\s*{name}\b\s*[:=]"
            source = (ROOT / path).read_text()
            assert re.search(f"{definition}|{value}", source, re.M | re.I), f"{name} in {path}"
            named += 1
    assert named > 60


@each_page
def test_every_variable_that_is_named_exists(page: Path) -> None:
    known = {f"AUTORENEW_{name.upper()}" for name in Settings.model_fields}
    known |= {f"AUTORENEW_{name.upper()}_FILE" for name in FROM_FILES}
    known |= set(re.findall(r'"(AUTORENEW_[A-Z_]+)"', sources()))
    known |= {"AUTORENEW_TEST_RABBITMQ", "AUTORENEW_TEST_CLUSTER"}  # read by tests alone

    assert set(re.findall(r"AUTORENEW_[A-Z]+(?:_[A-Z]+)*", page.read_text())) <= known


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()

    for page in DOCS.rglob("*.md"):
        path = str(page.relative_to(DOCS))
        assert path == "README.md" or f"({path})" in index, path


def test_every_command_has_its_row_with_all_its_options() -> None:
    documented = {row[0].strip("`"): row for row in rows(REFERENCE / "command-line.md")}

    for name, command in leaves(main):
        row = next((r for cell, r in documented.items() if f"{cell} ".startswith(f"{name} ")), None)
        assert row is not None, name
        options = {
            max(names, key=len)
            for parameter in command.params
            if isinstance(parameter, click.Option)
            for names in (parameter.opts, parameter.secondary_opts)
            if names
        }
        assert set(re.findall(r"`(--[\w-]+)`", row[1])) == options, name


def test_every_setting_has_its_row_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1] for row in rows(REFERENCE / "settings.md")[2:]}

    assert set(documented) == {f"AUTORENEW_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default, said = field.default, documented[f"AUTORENEW_{name.upper()}"]
        if default is None:
            assert said == "none", name
        elif isinstance(default, str):
            assert said == f"`{default}`", name
        else:
            assert json.loads(said.strip("`")) == to_jsonable_python(default, exclude_none=True), (
                name
            )


def test_settings_that_may_be_read_from_files_are_listed() -> None:
    (listed,) = re.findall(r"(?s)`…_FILE`: (.+?)\.\s", (REFERENCE / "settings.md").read_text())

    assert set(re.findall(r"`([A-Z_]+)`", listed)) == {name.upper() for name in FROM_FILES}


def test_every_metric_has_its_row_with_its_kind_and_labels() -> None:
    documented = {row[0].strip("`"): row for row in rows(REFERENCE / "metrics.md")}
    ours = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    ours += [metrics.relay_last_round(), metrics.scheduler_last_round(), metrics.event_lag()]
    ours += [metrics.changes_overdue(), metrics.intake_waiting(), metrics.bulk_operations_open()]

    assert ours
    for metric in ours:
        (family,) = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kind, labels = documented.pop(name)[1:3]
        assert kind == family.type, name
        assert re.findall(r"`(\w+)`", labels) == list(metric._labelnames), name
    for exported in (*FAMILIES, FAILED_COLLECTIONS):
        is_counter = exported is FAILED_COLLECTIONS
        kind, labels = documented.pop(exported.name + "_total" * is_counter)[1:3]
        assert kind == ("counter" if is_counter else "gauge")
        assert tuple(re.findall(r"`(\w+)`", labels)) == exported.labels, exported.name
    assert documented.pop("autorenew_worker_group_restarts_total")
    assert not [name for name in documented if name.startswith("autorenew_")]


def test_every_metric_in_a_query_exists() -> None:
    known = {
        sample.name
        for family in REGISTRY.collect()
        if family.name.startswith("autorenew_")
        for sample in family.samples
    }
    known |= {name for name in first_cells(REFERENCE / "metrics.md") if "autorenew_" in name}
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}

    for page in PAGES:
        named = set(
            re.findall(
                r"\bautorenew_(?:task|call|intake|relay|resc|ref|swept|scheduler|guard|lane|exporter|oldest|failed|process)\w+",
                page.read_text(),
            )
        )
        assert named <= known


def test_every_field_of_an_order_is_documented() -> None:
    fields = set(OrderDocument.model_fields)
    fields |= {f"customer.{name}" for name in CustomerDocument.model_fields}
    fields |= {f"lines.N.{name}" for name in LineDocument.model_fields}

    assert fields - {"customer"} <= first_cells(REFERENCE / "order.md")


def test_every_field_of_a_command_is_documented() -> None:
    assert {name for model in COMMANDS for name in model.model_fields} <= first_cells(
        REFERENCE / "commands.md"
    )


def test_every_column_of_an_import_is_documented() -> None:
    assert set(imported_rows.FIELDS) <= first_cells(REFERENCE / "import.md")


def test_every_field_of_a_policy_is_documented_with_its_default() -> None:
    table = rows(REFERENCE / "life-cycle.md")
    documented = {row[0].strip("`"): row[1].strip("`") for row in table}

    for name, default in asdict(DEFAULT_POLICY).items():
        if name not in ("code", "reminders_for"):
            assert documented[name] == str(list(default) if isinstance(default, tuple) else default)


def test_every_decision_and_outcome_of_a_forecast_is_documented() -> None:
    assert {*Decision, *Outcome} <= first_cells(REFERENCE / "forecast.md")


def test_every_step_and_mode_is_documented() -> None:
    assert {*Step, *RenewalMode} <= first_cells(REFERENCE / "life-cycle.md")


def test_every_guarded_lane_is_documented() -> None:
    assert set(GUARDED_LANES) <= first_cells(DOCS / "how-to/after-a-restore.md")


@pytest.mark.parametrize(
    ("page", "modules"),
    [
        (
            "order",
            (
                *("schemas/json_bodies", "schemas/messages", "schemas/rules/tax"),
                *(f"producers/intake/{name}" for name in ("amqp", "intake", "orders", "realms")),
                *("producers/intake/validation", "schemas/rules/sellable"),
            ),
        ),
        (
            "commands",
            tuple(f"producers/intake/{name}" for name in ("commands", "customer", "realms")),
        ),
        (
            "import",
            (
                *("producers/imports/rows", "producers/imports/services"),
                *("schemas/rules/tax", "schemas/rules/sellable"),
            ),
        ),
    ],
)
def test_every_problem_code_is_documented_and_no_other(page: str, modules: tuple[str, ...]) -> None:
    documented = {
        code
        for row in codes_of(REFERENCE / f"{page}.md")
        for code in re.findall(r"`([a-z_]+)`", row[0])
    }
    codes = {code for name in modules for code in _problem_codes(name)}
    of_commands = {"command_unknown"}
    match page:
        case "order":
            codes -= of_commands
        case "commands":
            codes |= {*of_commands, "payment_method_expires_invalid"}
        case _:
            codes.discard("header_invalid")  # of the file, not of a row
            # An import takes over what was sold, however many and with whatever options.
            codes -= {code for code in codes if code.startswith(("quantity_", "option_"))}

    assert documented == codes


def codes_of(page: Path) -> list[list[str]]:
    """The rows of the table whose first column is the code."""
    table = rows(page)
    start = next(number for number, row in enumerate(table) if row[0] == "code")
    return table[start + 2 :]


def _problem_codes(module: str) -> set[str]:
    """The codes in the code: of calls, of `code = …`, and of the tables of the shape's problems."""
    text = (ROOT / f"{module}.py").read_text()
    codes = set(re.findall(r'\bcode=?\s*=?\s*"(\w+)"', text))
    codes |= set(re.findall(r'\b_problem\(\s*"([a-z]+_[a-z_]+)"', text)) - set(imported_rows.FIELDS)
    codes |= set(re.findall(r'\bObstacle\(\s*"([a-z_]+)"', text))
    codes |= set(re.findall(r'"(field_\w+)"', text))
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            match ast.unparse(node.targets[0]):
                case "_CODES":
                    codes |= set(ast.literal_eval(node.value).values())
                case "_ACCEPTED":
                    codes |= {code for code, _ in ast.literal_eval(node.value).values()}
    return codes


def test_every_fault_is_documented() -> None:
    assert set(KINDS) <= first_cells(REFERENCE / "simulator.md")


def test_every_failpoint_is_documented() -> None:
    assert first_cells(REFERENCE / "failpoints.md") == set(failpoints.NAMES)


def test_every_invariant_is_documented() -> None:
    documented = [row for row in rows(REFERENCE / "audit.md") if re.search(r"`\w+\.\w+`", row[0])]

    checks = (*audit.CHECKS, *audit.COMPARISONS)
    assert documented == [[f"`{check.code}`", check.must] for check in checks]


def test_every_user_is_documented_with_its_permissions() -> None:
    documented = {
        row[0].strip("`"): tuple(cell.strip("`") for cell in row[1:])
        for row in rows(REFERENCE / "broker.md")
        if len(row) == 4
    }

    for user, permissions in topology.PERMISSIONS.items():
        assert documented[user] == permissions
    assert set(QUEUES) <= set(re.findall(r"`(\w+)`", (REFERENCE / "broker.md").read_text()))


def test_every_database_role_is_documented() -> None:
    page = first_cells(REFERENCE / "database-roles.md")
    named = {name for name in page if name.startswith("autorenew_")}

    assert named == {f"autorenew_{role}" for role in ROLES}


def test_every_reason_and_every_event_that_is_documented_is_in_the_code() -> None:
    code = sources()
    for word in first_cells(REFERENCE / "states.md"):
        start, _, end = word.partition("." if "." in word else "_")
        whole = f'"{word}"' in code or f"'{word}'" in code  # in Python or in SQL
        in_parts = f'"{start}.{{' in code or f'"{start}_{{' in code
        assert whole or (in_parts and f'"{end}"' in code), word


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in wanted}

    assert first_cells(DOCS / "decisions/0001-dependencies.md") == names


class TestTheExamples:
    ORDERS = DOCS / "examples/orders.ndjson"

    def test_all_example_orders_but_one_can_be_sold_from_the_bundled_catalogue(self) -> None:
        catalogue, now = bundled(), datetime.now(UTC)
        answers = {}
        for line in self.ORDERS.read_bytes().splitlines():
            _, order, problems = parse(line)
            assert isinstance(order, OrderDocument), problems
            answers[order.key] = [p.code for p in problems_of(order, catalogue, now)]

        assert answers == {
            "example-1": [],
            "example-2": [],
            "example-3": [],
            "example-4": [],
            "example-5": ["plan_not_sold"],
        }

    def test_example_orders_cover_every_universe(self) -> None:
        catalogue = bundled()
        lines = [
            line
            for text in self.ORDERS.read_text().splitlines()
            for line in json.loads(text)["lines"]
        ]

        universes = {plan.universe for line in lines if (plan := catalogue.plan(line["plan"]))}
        assert len(universes) == 4

    def test_order_of_the_reference_is_valid(self) -> None:
        (block,) = fences(REFERENCE / "order.md", "json")
        _, order, problems = parse(block.encode())

        assert isinstance(order, OrderDocument), problems
        assert problems_of(order, bundled(), datetime.now(UTC)) == []

    def test_every_command_of_the_reference_is_valid(self) -> None:
        shown = [parse(block.encode())[1:] for block in fences(REFERENCE / "commands.md", "json")]

        assert [problems for _, problems in shown if problems] == []
        assert [type(command) for command, _ in shown] == list(COMMANDS)

    def test_example_services_can_be_imported(self) -> None:
        header, *lines = (DOCS / "examples/services.csv").read_bytes().splitlines()
        form = imported_rows.CsvRows(header)
        catalogue = bundled()

        for number, line in enumerate(lines, 2):
            row, problems = imported_rows.parse(form, number, line)
            assert problems == []
            assert row is not None
            plan = catalogue.plan(row.service.plan)
            assert plan is not None
            assert plan.renewal("FR", row.period) is not None

    def test_policies_of_the_pages_are_valid(self, tmp_path: Path) -> None:
        for page in (REFERENCE / "life-cycle.md", DOCS / "how-to/change-a-policy.md"):
            (block,) = fences(page, "toml")
            (tmp_path / "policies.toml").write_text(block)

            catalogue = load([BUNDLED, tmp_path])

        plan = catalogue.plan("gift-card")
        assert plan is not None
        assert plan.policy.suspend is None
        assert plan.policy.charges == (-2, -1)

    def test_example_faults_are_valid_rules(self) -> None:
        rules = json.loads((DOCS / "examples/faults.json").read_text())

        assert len(Faults(rules).rules) == len(rules)

    def test_plan_of_the_how_to_fits_the_bundled_catalogue(self, tmp_path: Path) -> None:
        (block,) = fences(DOCS / "how-to/add-a-plan.md", "toml")
        (tmp_path / "games.toml").write_text(block)

        plan = load([BUNDLED, tmp_path]).plan("game-server")
        assert plan is not None
        assert list(map(str, plan.periods("FR"))) == ["P1M", "P12M"]

    @pytest.mark.parametrize("script", sorted((DOCS / "examples").glob("*.py")))
    def test_example_scripts_can_be_imported(self, script: Path) -> None:
        namespace = {"__name__": "example", "__file__": str(script)}

        exec(compile(script.read_text(), str(script), "exec"), namespace)

        assert callable(namespace["main"])


def test_every_reason_stands_in_the_row_of_its_class() -> None:
    said = {
        row[0]: set(re.findall(r"`(\w+)`", row[3]))
        for row in rows(REFERENCE / "failures.md")
        if len(row) == 4 and row[0] in set(FailureClass)
    }

    assert said == {
        kind.value: {reason for reason, its in REASONS.items() if its is kind}
        for kind in FailureClass
    }
