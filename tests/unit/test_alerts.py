"""Alerts, their pages, their unit tests and who is told of them fit each other; the tools of
Prometheus find nothing wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from monitoring import metrics
from monitoring.exporter.families import FAILED_COLLECTIONS, FAMILIES
from producers.steps import QUEUES
from schemas.tables import ROLES
from tests.support.prometheus import FOLDER, ROOT, RULES, alerts, rules, tool
from workers.group_metrics import RESTARTS

PAGES = ROOT / "docs/runbooks"
CASES = sorted((Path(__file__).parent / "promtool").glob("*.test.yml"))
ALERTS = alerts()
SECTIONS = [
    "What it means",
    "What to look at",
    "What to do",
    "How to see that it is over",
]
EXTERNAL = {"fleet"}  # what Prometheus adds to every alert
EVERY = ("name", "rule")
each_alert = pytest.mark.parametrize(EVERY, ALERTS.items(), ids=list(ALERTS))


def page_of(name: str) -> Path:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.removeprefix("Autorenew"))
    return PAGES / f"{words.lower()}.md"


@each_alert
def test_alert_has_a_page_that_its_link_leads_to(name: str, rule: dict[str, Any]) -> None:
    page = page_of(name)

    assert rule["annotations"]["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}/{page.name}"
    text = page.read_text()
    assert text.startswith(f"# {name}\n\nSeverity: {rule['labels']['severity']}")
    assert re.findall(r"^## (.+)$", text, re.M) == SECTIONS


def test_every_page_is_of_an_alert() -> None:
    assert set(PAGES.glob("*.md")) == {page_of(name) for name in ALERTS}


@each_alert
def test_alert_says_what_a_stranger_needs(name: str, rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket", "watchdog")
    assert rule["labels"]["source"] in ("exporter", "fleet", "rabbitmq", "prometheus")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "no_data"}
    assert len(rule["annotations"]["description"]) > 20


@each_alert
def test_alert_names_one_that_fires_when_it_has_no_data(name: str, rule: dict[str, Any]) -> None:
    twin = name
    for _ in range(3):  # one that has no data itself names another
        twin = ALERTS[twin]["annotations"]["no_data"]
        if ALERTS[twin]["annotations"]["no_data"] == twin:
            break
    expr = ALERTS[twin]["expr"]
    assert "absent(" in expr or expr == "vector(1)", f"{name} -> {twin}"


@each_alert
def test_alert_has_a_unit_test_in_which_it_fires(name: str, rule: dict[str, Any]) -> None:
    fired = set()
    for file in CASES:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for query in case.get("promql_expr_test", ()):
                for sample in query["exp_samples"]:
                    if "pending" not in sample["labels"]:
                        fired |= set(re.findall(r'alertname="(\w+)"', sample["labels"]))
            for expected in case.get("alert_rule_test", ()):
                if expected["exp_alerts"]:
                    fired.add(expected["alertname"])

    assert name in fired


def test_every_metric_of_a_rule_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = known_metrics()

    for rule in rules():
        named = set(re.findall(r"\bautorenew_\w+", rule["expr"]))
        assert named <= known, rule
        assert set(re.findall(r"\bautorenew:[\w:]+", rule["expr"])) <= recorded, rule


def test_every_metric_of_a_page_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}

    for page in [*PAGES.glob("*.md"), ROOT / "docs/how-to/watch-with-prometheus.md"]:
        text = page.read_text()
        named = set(re.findall(r"\bautorenew_\w+", text))
        named -= {f"autorenew_{role}" for role in ROLES}
        assert named <= known_metrics(), page
        assert set(re.findall(r"\bautorenew:[\w:]+", text)) <= recorded, page


def known_metrics() -> set[str]:
    """Names of samples of every process."""
    for create in (
        *(metrics.relay_last_round, metrics.scheduler_last_round, metrics.changes_overdue),
        *(metrics.intake_waiting, metrics.bulk_operations_open),
    ):
        create()
    families = [family for family in REGISTRY.collect() if family.name.startswith("autorenew_")]
    suffixes = {
        "counter": ("_total",),
        "histogram": ("_bucket", "_sum", "_count"),
        "gauge": ("",),
    }
    known = {family.name + end for family in families for end in suffixes[family.type]}
    known |= {family.name for family in FAMILIES}
    return known | {f"{FAILED_COLLECTIONS.name}_total", f"{RESTARTS}_total"}


def test_queues_that_somebody_must_consume_are_those_there_are() -> None:
    (pattern,) = re.findall(r'queue=~"([^"]+)"', ALERTS["AutorenewQueueNotConsumed"]["expr"])

    for queue in (*QUEUES, "intake", "intake.upstream-shop"):
        assert re.fullmatch(pattern, queue), queue
    assert not re.fullmatch(pattern, "intake.dead")


def test_services_of_compose_are_those_that_are_scraped() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    scraped = {
        name
        for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
        for discovery in job.get("dns_sd_configs", ())
        for name in discovery["names"]
    }

    serving = {
        name
        for name, service in compose.items()
        if "AUTORENEW_METRICS_PORT" in (service.get("environment") or {})
    }
    assert serving
    assert serving <= scraped
    assert "rabbitmq" in scraped


class TestWhoIsTold:
    CONFIGURATION = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())

    @pytest.mark.parametrize("severity", ["page", "ticket", "watchdog"])
    def test_an_alert_goes_to_the_receiver_of_its_severity(self, severity: str) -> None:
        tool(
            "amtool", "config", "routes", "test",
            f"--config.file={FOLDER / 'alertmanager.yml'}", f"--verify.receivers={severity}",
            f"severity={severity}", "alertname=AutorenewX",
        )  # fmt: skip

    @pytest.mark.parametrize("rule", CONFIGURATION["inhibit_rules"], ids=str)
    def test_a_rule_silences_alerts_that_exist_and_have_its_labels(
        self, rule: dict[str, Any]
    ) -> None:
        """A label of `equal` that both lack counts as equal (prometheus/alertmanager#1727)."""
        sources, targets = (
            self._matched(rule["source_matchers"]),
            self._matched(rule["target_matchers"]),
        )

        assert sources
        assert targets
        assert not sources & targets
        for name in sources | targets:
            missing = set(rule["equal"]) - EXTERNAL - self._labels(name)
            # Without a worker at all there is no queue either: nothing to compare.
            assert not missing, (name, missing)

    def test_without_an_exporter_nothing_that_is_derived_from_it_pages(self) -> None:
        derived = {n for n, rule in ALERTS.items() if rule["labels"]["source"] == "exporter"}
        silenced = set()
        for rule in self.CONFIGURATION["inhibit_rules"]:
            if "AutorenewExporterSilent" in self._matched(rule["source_matchers"]):
                silenced |= self._matched(rule["target_matchers"])

        assert len(derived) > 10
        assert derived - {"AutorenewExporterSilent"} == silenced

    @staticmethod
    def _matched(matchers: list[str]) -> set[str]:
        found = set()
        for name, rule in ALERTS.items():
            labels = {"alertname": name, **rule["labels"]}
            for matcher in matchers:
                label, how, value = re.fullmatch(r'(\w+) ([=!~]+) "(.+)"', matcher).groups()  # type: ignore[union-attr]
                is_it = re.fullmatch(value if "~" in how else re.escape(value), labels[label])
                if bool(is_it) == how.startswith("!"):
                    break
            else:
                found.add(name)
        return found

    @staticmethod
    def _labels(name: str) -> set[str]:
        """Labels that each of an alert's samples has: those its expression sums by."""
        expr = ALERTS[name]["expr"]
        grouped = [set(re.split(r", ?", by)) for by in re.findall(r"by \(([\w, ]+)\)", expr)]
        if "autorenew:task_waits_slow" in expr:
            grouped.append({"queue"})
        return set.intersection(*grouped) if grouped else set()


class TestTheTools:
    def test_rules_are_valid(self) -> None:
        said = tool("promtool", "check", "rules", *sorted(RULES.glob("*.yml")))

        assert "duplicate" not in said

    def test_configuration_of_prometheus_is_valid(self) -> None:
        said = tool("promtool", "check", "config", FOLDER / "prometheus.yml")

        assert "2 rule files found" in said

    def test_configuration_of_alertmanager_is_valid(self) -> None:
        assert "SUCCESS" in tool("amtool", "check-config", FOLDER / "alertmanager.yml")

    @pytest.mark.parametrize("cases", CASES, ids=lambda path: path.name)
    def test_alerts_fire_when_they_should_and_not_when_not(self, cases: Path) -> None:
        tool("promtool", "test", "rules", cases.name, cwd=cases.parent)
