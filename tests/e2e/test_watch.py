"""A real Prometheus and Alertmanager, with the project's configuration, watch a real fleet.

Things are broken, and the alerts arrive at a webhook; they are mended, and the alerts resolve. It
happens once, and every test looks at what was seen.
"""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import pytest
import urllib3

from autorenew.local.fleet import PrivateFleet
from autorenew.local.ports import free_port
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from monitoring.grafana.boards import BOARDS
from monitoring.grafana.rendering import Panel
from simulator.mailbox import Mailbox
from simulator.server import Running
from tests.support.given import CATALOGUE, body, line, order
from tests.support.prometheus import Receiver, Watch, alerts, wait_for

pytestmark = pytest.mark.rabbitmq

# What a person would wait for takes too long for a test. That the true times are right is shown by
# tests/unit/promtool.
QUICK = {
    "AutorenewRelaySilent": {"> 120": "> 6"},
    "AutorenewProvisioningFails": {"offset 1h": "offset 15s"},
    "AutorenewOldestHeldTask": {"> 86400": "> 3"},
}
TIMEOUT = 60.0
SILENCE = 12.0  # seconds, after which the guard takes the fleet for lost
BROKEN = {
    "AutorenewNoWorker": {"queue": "telecom", "severity": "page"},
    "AutorenewLaneOpen": {"lane": "driver:cloud", "severity": "page"},
    "AutorenewProvisioningFails": {"driver": "dedicated", "severity": "page"},
    "AutorenewOldestHeldTask": {"queue": "cloud", "severity": "ticket"},
}
SILENT = {
    "AutorenewRelaySilent": {"severity": "page"},
    "AutorenewTargetDown": {"job": "autorenew", "severity": "ticket"},
}
GUARDED = {
    "AutorenewGuardPaused": {"lane": "gateway", "severity": "page"},
}
RULES = [
    {"fault": "refuse", "target": "infrastructure", "operation": "create", "plan": "server"},
    {"fault": "error", "target": "infrastructure", "plan": "vm", "times": 1_000_000},
]


@dataclass
class Story:
    """What was seen.

    Attributes:
        missing: what was waited for in vain.
        panels: (board, panel) -> what each of its queries returned while things were broken.
        firing: alerts that fired before anything was broken.
    """

    receiver: Receiver
    missing: list[str] = field(default_factory=list)
    panels: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    firing: set[str] = field(default_factory=set)

    def expect(self, named: dict[str, dict[str, str]], status: str) -> None:
        for name, labels in named.items():
            self.wait(
                lambda name=name, labels=labels: self.receiver.heard(name, status, **labels),
                f"{name} {status}",
            )

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        try:
            wait_for(condition, TIMEOUT, what)
        except TimeoutError:
            self.missing.append(what)


class World:
    """A fleet on a private broker and database, a far side that fails in part, and who watches."""

    def __init__(
        self, folder: Path, postgres: PrivatePostgres, rabbitmq: PrivateRabbitMQ, stack: ExitStack
    ) -> None:
        self.simulator = stack.enter_context(Running(rules=RULES))
        mailbox = stack.enter_context(Mailbox())
        self.fleet = PrivateFleet(
            folder / "fleet", postgres, rabbitmq,
            database="watched",
            simulator_url=self.simulator.url,
            smtp_url=mailbox.url,
            call_seconds="1",
            retry_base_seconds="0.3",
            retry_cap_seconds="1",
            silence_seconds=str(SILENCE),
            shutdown_seconds="5",
            breaker=json.dumps({"failures": 3, "seconds": 1, "cap_seconds": 2}),
        )  # fmt: skip
        self.fleet.prepare(CATALOGUE)
        stack.callback(self.fleet.close)
        self.receiver = Receiver()
        stack.callback(self.receiver.close)
        self.ports = {name: free_port() for name in self._ROLES}
        broker = f"127.0.0.1:{rabbitmq.metrics_port}"
        targets = {
            "autorenew": [
                (f"127.0.0.1:{self.ports[name]}", name)
                for name in self._ROLES
                if name not in ("exporter", "worker-telecom")
            ],
            "autorenew-exporter": [(f"127.0.0.1:{self.ports['exporter']}", "exporter")],
            "rabbitmq": [(broker, "rabbitmq")],
            "rabbitmq-queues": [(broker, "rabbitmq")],
        }
        self.watch = Watch(folder / "watch", targets, self.receiver, QUICK)
        stack.callback(self.watch.close)

    _ROLES = (
        *("relay", "scheduler", "intake", "worker-orders", "worker-billing"),
        *("worker-reminders", "worker-web", "worker-telecom", "exporter"),
    )

    def start(self, name: str) -> None:
        port = str(self.ports[name])
        kind, _, queue = name.partition("-")
        match kind:
            case "exporter":
                self.fleet.start(
                    name, "exporter", "--port", port, user="exporter", role="exporter",
                )  # fmt: skip
            case "worker":
                queues = ("web", "dedicated", "cloud") if queue == "web" else (queue,)
                self.fleet.start_worker(*queues, name=name, threads=2, metrics_port=port)
            case _:
                getattr(self.fleet, f"start_{kind}")(metrics_port=port)

    def order(self, plan: str, quantity: int) -> None:
        """As upstream does."""
        url = pika.URLParameters(self.fleet.broker_url("upstream"))
        connection = pika.BlockingConnection(url)
        channel = connection.channel()
        channel.confirm_delivery()
        # Far sides are judged by several subjects, and customers pay for themselves.
        document = order(f"{plan}-1", line(plan, quantity=quantity), customer=f"c-{plan}")
        properties = pika.BasicProperties(user_id="upstream", delivery_mode=2)
        channel.basic_publish("intake", "", body(document), properties, mandatory=True)
        connection.close()

    def delivered(self, plan: str) -> bool:
        query = "SELECT count(*) FROM orders WHERE key = :key AND state = 'delivered'"
        return bool(self.fleet.scalar(query, key=f"{plan}-1"))

    def command(self, *arguments: str) -> None:
        """As an operator does, with the rights of the role ``api``."""
        done = subprocess.run(
            [sys.executable, "-m", "autorenew", *arguments],
            env={**os.environ, **self.fleet.environment("relay", "api")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def story(
    postgres: PrivatePostgres, rabbitmq: PrivateRabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    with ExitStack() as stack:
        world = World(tmp_path_factory.mktemp("watched"), postgres, rabbitmq, stack)
        seen = Story(world.receiver)
        tell(world, seen)
        yield seen


def tell(world: World, seen: Story) -> None:
    for name in world.ports:
        if name not in ("exporter", "worker-telecom"):
            world.start(name)
    world.order("site", 2)
    seen.wait(lambda: world.delivered("site"), "a site is delivered")
    world.start("exporter")
    world.watch.start()
    silent = {"AutorenewFullAuditTooOld", "AutorenewWatchdog"}  # none has ended yet
    seen.wait(
        lambda: world.watch.query("autorenew_lane_paused and on () rabbitmq_identity_info"),
        "everything is scraped",
    )
    seen.wait(lambda: world.receiver.heard("AutorenewWatchdog"), "the watchdog")
    seen.wait(lambda: not world.watch.query(FIRING) or firing(world) <= silent, "all is well")
    seen.firing = firing(world) - silent

    world.order("phone", 1)
    world.order("server", 10)
    world.order("vm", 5)
    seen.expect(BROKEN, "firing")
    # Some of what is counted has its first value later than the alerts fire.
    seen.wait(lambda: looks(world.watch, seen.panels), "every panel has data")

    for name in ("relay", "scheduler"):
        world.fleet.members.pop(name).stop()
    seen.expect(SILENT, "firing")
    urllib3.request("DELETE", f"{world.simulator.url}/faults")
    world.start("worker-telecom")
    seen.wait(lambda: world.fleet.scalar(QUIET_FOR) > SILENCE, "a silence")
    for name in ("relay", "scheduler"):
        world.start(name)
    seen.expect(SILENT, "resolved")
    seen.expect(GUARDED, "firing")

    because = ("--because", "mended")
    commands = [
        ("failed", "retry", "--driver", "dedicated", "--all-at-once", "--no-wait", *because),
        *(
            ("lanes", "resume", lane, "--guard", *because)
            for lane in ("gateway", "renewals", "destructive")
        ),
    ]
    with ThreadPoolExecutor(len(commands)) as operators:
        list(operators.map(lambda arguments: world.command(*arguments), commands))
    seen.expect({**BROKEN, **GUARDED}, "resolved")
    for plan in ("phone", "server", "vm"):
        seen.wait(lambda plan=plan: world.delivered(plan), f"{plan} is delivered")


FIRING = 'ALERTS{alertstate="firing"}'
QUIET_FOR = """
    SELECT extract(epoch FROM clock_timestamp() - beat_at)::float8 FROM heartbeat
"""


def firing(world: World) -> set[str]:
    return {one["metric"]["alertname"] for one in world.watch.query(FIRING)}


def looks(watch: Watch, panels: dict[tuple[str, str], list[int]]) -> bool:
    """Look at each panel that had no data yet; whether all have some that are to have it."""
    for board in BOARDS:
        for row in board.rows:
            for panel in row.panels:
                place = board.uid, panel.title
                if not all(panels.get(place, [0])):
                    panels[place] = results(watch, panel)
    return all(all(counts) for (_, title), counts in panels.items() if title not in EMPTY)


def results(watch: Watch, panel: Panel) -> list[int]:
    """How many series each query of a panel returns, with every variable at *All*."""
    return [
        len(
            watch.query(
                query.expr.replace("$__rate_interval", "30s")
                .replace("$queue", ".+")
                .replace("$driver", ".+")
            )
        )
        for query in panel.queries
    ]


def test_nothing_that_was_waited_for_is_missing(story: Story) -> None:
    assert story.missing == []


def test_a_fleet_that_works_sets_off_no_alert(story: Story) -> None:
    assert story.firing == set()


@pytest.mark.parametrize("name", [*BROKEN, *SILENT, *GUARDED])
def test_alert_arrives_at_the_receiver_of_its_severity_and_is_taken_back(
    story: Story, name: str
) -> None:
    labels = {**BROKEN, **SILENT, **GUARDED}[name]
    told = [
        (receiver, status)
        for receiver, status, its, _ in story.receiver.told
        if its["alertname"] == name and labels.items() <= its.items()
    ]

    assert {receiver for receiver, _ in told} == {labels["severity"]}
    assert [status for _, status in told][:1] == ["firing"]
    assert "resolved" in {status for _, status in told}


@pytest.mark.parametrize("name", [*BROKEN, *SILENT, *GUARDED])
def test_alert_says_where_its_page_is_and_has_no_blanks(story: Story, name: str) -> None:
    for annotations in story.receiver.heard(name):
        assert annotations["runbook_url"].startswith("https://runbooks.example.com/autorenew/")
        assert set(annotations) == set(alerts()[name]["annotations"])
        for text in annotations.values():
            assert text
            assert "{{" not in text
            assert "<error" not in text


def test_nobody_is_told_of_a_queue_without_consumers_that_has_no_worker(story: Story) -> None:
    """At most before the exporter, which looks more seldom, has said so, or once there is one."""
    told = [(its["alertname"], status) for _, status, its, _ in story.receiver.told]
    lasting = told[told.index(("AutorenewNoWorker", "firing")) :]
    lasting = lasting[: lasting.index(("AutorenewNoWorker", "resolved"))]

    assert ("AutorenewQueueNotConsumed", "firing") not in lasting


def test_the_watchdog_is_called_again_and_again(story: Story) -> None:
    assert {r for r, _, its, _ in story.receiver.told if its["alertname"].endswith("Watchdog")} == {
        "watchdog"
    }


@pytest.mark.parametrize(
    ("uid", "panel"),
    [(b.uid, panel) for b in BOARDS for row in b.rows for panel in row.panels],
    ids=lambda value: value.title if isinstance(value, Panel) else value,
)
def test_every_query_of_a_panel_returns_data(story: Story, uid: str, panel: Panel) -> None:
    if panel.title in EMPTY:
        assert panel.no_value is not None, "says what no data means"
        return
    assert all(story.panels[uid, panel.title]), panel.queries


# What is broken here breaks no check of the audit.
EMPTY = {"Checks that are broken"}


def test_without_an_exporter_what_is_derived_from_it_is_held_back(tmp_path: Path) -> None:
    """Every alert of the project is sent to a real Alertmanager at once, by its labels."""
    receiver = Receiver()
    watch = Watch(tmp_path, {}, receiver, {})
    try:
        watch.start_alertmanager()
        posted = [
            {"labels": {"alertname": name, "fleet": "autorenew", **rule["labels"]}}
            for name, rule in alerts().items()
        ]
        request = urllib.request.Request(
            f"{watch.alerts_url}/api/v2/alerts",
            json.dumps(posted).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=5).close()
        for name in ("ExporterSilent", "TargetDown", "BrokerAlarm", "Unroutable", "Defects"):
            wait_for(lambda name=name: receiver.heard(f"Autorenew{name}"), 20, name)
    finally:
        watch.close()
        receiver.close()

    told = {labels["alertname"] for _, _, labels, _ in receiver.told}
    derived = {name for name, r in alerts().items() if r["labels"]["source"] == "exporter"}
    assert told & derived == {"AutorenewExporterSilent"}
