"""docker-compose.yml in containers: the fleet is built, runs, scales, loses one, and drains."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pika
import pytest
import urllib3

from autorenew.catalogues import bundled
from autorenew.demo import orders as demo_orders
from autorenew.local.ports import free_port
from producers.steps import QUEUES
from producers.topology import PERMISSIONS
from tests.support.compose import Composition
from tests.support.given import wait_until
from tests.support.servers import containers

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parents[2]
JOBS = ("migrate", "broker-setup", "catalogue")
# So that what a killed worker held is free again soon.
QUICK = {"AUTORENEW_LEASE_SECONDS": "6", "AUTORENEW_RESCUE_SECONDS": "3"}


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """What ``.env`` says, and ports of this machine that are free."""
    file = tmp_path / "env"
    subprocess.run(
        ["sh", str(ROOT / "scripts/make-env.sh"), str(file)], check=True, capture_output=True
    )
    text = (ROOT / "docker-compose.yml").read_text()
    ports = {name: str(free_port()) for name in re.findall(r"\$\{(\w+_PORT):-\d+\}", text)}
    return dict(line.split("=", 1) for line in file.read_text().splitlines()) | ports


@pytest.fixture
def composition(variables: dict[str, str], tmp_path: Path) -> Iterator[Composition]:
    folder = containers()
    images = dict(line.split() for line in (folder / "images").read_text().splitlines())
    configs = tmp_path / "configs"
    configs.mkdir(mode=0o755)
    composition = Composition(
        folder / "podman",
        ROOT / "docker-compose.yml",
        images=images,
        variables=variables,
        folder=configs,
        project=f"autorenew-test-{os.getpid()}",
    )
    for name, service in composition.services.items():
        if name.startswith("worker-"):
            service["environment"] |= QUICK
    try:
        composition.create()
        yield composition
    finally:
        composition.remove()


class Outside:
    """What upstream systems and the test see: ports of the host, and questions to the database."""

    def __init__(self, composition: Composition, variables: dict[str, str]) -> None:
        self._composition = composition
        self._variables = variables
        self._http = urllib3.PoolManager(retries=False, timeout=10)

    def publish(self, documents: list[Any]) -> None:
        """As the user ``upstream``, with confirms."""
        password, port = (self._variables[name] for name in ("UPSTREAM_PASSWORD", "AMQP_PORT"))
        url = f"amqp://upstream:{password}@127.0.0.1:{port}/%2F"
        properties = pika.BasicProperties(user_id="upstream", delivery_mode=2)
        with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for document in documents:
                body = json.dumps(document).encode()
                channel.basic_publish("intake", "", body, properties, mandatory=True)

    def ask(
        self, port: str, method: str, path: str, body: Any = None, key: str | None = None
    ) -> Any:
        """A door of the host, named by its variable, such as ``SIMULATOR_PORT``."""
        url = f"http://127.0.0.1:{self._variables[port]}{path}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        answer = self._http.request(method, url, body=body, headers=headers)
        assert answer.status < 300, (answer.status, answer.data)
        return answer.json()

    def value(self, query: str) -> int:
        said = self._composition.exec(
            "postgres", "psql", "-U", "autorenew", "-d", "autorenew", "-At", "-c", query
        )
        return int(said)

    def ended(self) -> int:
        return self.value(
            "SELECT count(*) FROM orders WHERE ended_at IS NOT NULL OR state = 'refused'"
        )

    def leased(self, queue: str) -> int:
        """Tasks that workers hold now."""
        return self.value(
            "SELECT coalesce(sum(size), 0) FROM batches"
            f" WHERE queue = '{queue}' AND state = 'leased'"
        )


def web_order(number: int) -> dict[str, Any]:
    return {
        "key": f"web-{number}",
        "customer": {
            "id": f"c-{number}", "subsidiary": "FR", "country": "FR", "language": "fr",
            "email": f"c-{number}@example.com",
        },
        "payment_method": f"tok-c-{number}",
        "contracts": [{"contract": "web", "version": 3}],
        "lines": [
            {
                "plan": "web-perso",
                "period": "P12M",
                "configuration": {"domain": f"{number}.example"},
            }
        ],
    }  # fmt: skip


def test_the_fleet_in_containers_delivers_scales_loses_one_and_drains(
    composition: Composition, variables: dict[str, str]
) -> None:
    outside = Outside(composition, variables)
    composition.up()
    lasting = [name for name in composition.services if composition.containers(name)]
    lasting = [name for name in lasting if name not in JOBS]
    for name in lasting:
        composition.wait_healthy(name)
    what_a_container_may(composition)
    who_may_speak_to_the_broker(composition)

    # Orders from outside.
    outside.publish(list(demo_orders(bundled(), 40, seed=7)))
    key = json.loads(
        composition.run(
            "catalogue", "keys", "create", "--name", "test", "--upstream", "upstream",
            "--scope", "orders:write", "--json",
        )
    )["key"]  # fmt: skip
    outside.ask("API_PORT", "POST", "/v1/orders", web_order(1000), key)
    wait_until(lambda: outside.ended() >= 41, "the first orders end", 90)

    # One worker becomes three, and all of them are at work.
    outside.ask("SIMULATOR_PORT", "POST", "/faults", {
        "target": "infrastructure", "operation": "create", "plan": "web-perso", "fault": "slow",
        "seconds": 3,
    })  # fmt: skip
    composition.scale("worker-web", 3)
    for container in composition.containers("worker-web"):
        wait_until(lambda c=container: composition.is_healthy(c), f"{container} is healthy", 60)
    outside.publish([web_order(number) for number in range(300)])
    wait_until(lambda: outside.leased("web") > 0, "services are being made", 60)

    # One of the three is stopped under load: it drains. Another one is killed: it comes back.
    drained, killed, _ = composition.containers("worker-web")
    before = composition.inspect(killed)["State"]
    os.kill(before["Pid"], signal.SIGKILL)
    assert composition.stop(drained) == 0
    wait_until(
        lambda: composition.inspect(killed)["State"]["Pid"] not in (0, before["Pid"]),
        "what was killed is started again",
        30,
    )
    wait_until(lambda: outside.ended() >= 341, "every order ends", 150)

    assert "c-1@example.com" in json.dumps(outside.ask("SIMULATOR_PORT", "GET", "/mails"))
    composition.run("audit")
    what_is_watched(outside, {name for name in lasting if name.startswith("worker-")})

    # Everything drains.
    ours = [name for name in lasting if "build" in composition.services[name]]
    stopping = [container for name in ours for container in composition.containers(name)]
    with ThreadPoolExecutor(8) as pool:
        codes = dict(zip(stopping, pool.map(composition.stop, stopping), strict=True))
    assert codes == dict.fromkeys(stopping, 0)


def what_a_container_may(composition: Composition) -> None:
    """Nothing that the file takes away is there."""
    name = "worker-web"
    status = composition.exec(name, "cat", "/proc/self/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["10001"] * 4
    assert {facts[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"
    composition.exec(name, "touch", "/tmp/kept")
    for place in ("/data/x", "/opt/autorenew/x", "/x"):
        composition.exec(name, "touch", place, codes=(1,))
    (limit,) = (composition.services[name]["deploy"]["resources"]["limits"]["memory"],)
    seen = composition.inspect(composition.containers(name)[0])["HostConfig"]["Memory"]
    assert f"{seen >> 20}M" == limit


def what_is_watched(outside: Outside, workers: set[str]) -> None:
    """Prometheus scrapes every copy of every process, and its alerts reach Alertmanager."""

    def targets() -> list[dict[str, Any]]:
        said = outside.ask("PROMETHEUS_PORT", "GET", "/api/v1/targets?state=active")
        return [
            one for one in said["data"]["activeTargets"] if one["labels"]["job"] != "prometheus"
        ]

    def roles() -> list[str]:
        return [one["labels"]["role"] for one in targets() if one["labels"]["job"] == "autorenew"]

    def is_settled() -> bool:
        # One of three workers was stopped: names are looked up anew every half a minute.
        return roles().count("worker-web") == 2 and all(t["health"] == "up" for t in targets())

    wait_until(is_settled, "all targets are up, and two workers left", 120)
    assert {"intake", "relay", "scheduler", "api", "console", "pages", *workers} <= set(roles())
    jobs = {one["labels"]["job"] for one in targets()}
    assert {"autorenew-exporter", "rabbitmq", "rabbitmq-queues", "alertmanager"} <= jobs
    query = "/api/v1/query?query=count(autorenew_oldest_ready_seconds)"
    found = outside.ask("PROMETHEUS_PORT", "GET", query)["data"]["result"]
    assert int(found[0]["value"][1]) == len(QUEUES)

    def alerts() -> set[str]:
        said = outside.ask("ALERTMANAGER_PORT", "GET", "/api/v2/alerts")
        return {one["labels"]["alertname"] for one in said}

    wait_until(lambda: "AutorenewWatchdog" in alerts(), "an alert reaches Alertmanager", 60)


def who_may_speak_to_the_broker(composition: Composition) -> None:
    """One user a role, each with its own permissions; no guest; the plugins are on."""
    said = composition.exec("rabbitmq", "rabbitmqctl", "--silent", "--formatter", "json",
                            "list_permissions")  # fmt: skip
    permissions = {
        row["user"]: (row["configure"], row["write"], row["read"]) for row in json.loads(said)
    }
    assert permissions == {"admin": (".*", ".*", ".*"), **PERMISSIONS}
    said = composition.exec("rabbitmq", "rabbitmqctl", "--silent", "--formatter", "json",
                            "list_users")  # fmt: skip
    assert {row["user"] for row in json.loads(said)} == set(permissions)
    said = composition.exec(
        "worker-web", "python", "-c",
        "from urllib.request import urlopen;"
        "print(urlopen('http://rabbitmq:15692/metrics').read().decode())",
    )  # fmt: skip
    assert "rabbitmq_queue_messages" in said
    said = composition.exec("rabbitmq", "rabbitmqctl", "--silent", "--formatter", "json",
                            "list_queues", "name", "type")  # fmt: skip
    queues = {row["name"]: row["type"] for row in json.loads(said)}
    assert set(QUEUES) <= set(queues)
    assert set(queues.values()) == {"quorum"}
