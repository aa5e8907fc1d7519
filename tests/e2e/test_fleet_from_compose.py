"""The services of docker-compose.yml, started as processes with the same commands and environment;
only hosts, ports and passwords are those of this machine."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pika
import pytest

from autorenew.catalogues import bundled
from autorenew.demo import orders as demo_orders
from autorenew.local.ports import free_port
from autorenew.local.postgres import PrivatePostgres
from autorenew.local.rabbitmq import PrivateRabbitMQ
from producers.intake.links import Links
from schemas.clock import zone
from schemas.database import connect
from simulator.mailbox import Mailbox
from tests.e2e.test_compose import FLEET, SERVICES, VARIABLE
from tests.support.given import wait_until

pytestmark = pytest.mark.rabbitmq

DATABASE = "compose"
EXAMPLES = Path(__file__).parents[2] / "docs/examples/orders.ndjson"


class Deployment:
    """Every service of the file, on the private servers of the tests."""

    def __init__(
        self,
        postgres: PrivatePostgres,
        rabbitmq: PrivateRabbitMQ,
        mailbox: Mailbox,
        folder: Path,
    ) -> None:
        self._folder = folder
        roles = postgres.role_passwords()
        owner, admin = postgres.url(DATABASE), rabbitmq.url(vhost=DATABASE)
        self._passwords = {
            "OWNER_PASSWORD": re.split("[:@]", owner)[2],
            "BROKER_ADMIN_PASSWORD": re.split("[:@]", admin)[2],
            "INTAKE_PASSWORD": roles["api"],
            **{f"{role.upper()}_PASSWORD": password for role, password in roles.items()},
            "SMTP_URL": mailbox.url,
        }
        self.ports = {name: free_port() for name in SERVICES}
        self._replacements = {
            "//autorenew:": "//postgres:",
            "@postgres/autorenew": owner[owner.index("@127") :],
            "@rabbitmq:5672/%2F": admin[admin.index("@127") :],
            "rabbitmq:15672": f"127.0.0.1:{rabbitmq.management_port}",
            "simulator:8090": f"127.0.0.1:{self.ports['simulator']}",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, service: str) -> dict[str, str]:
        values = SERVICES[service].get("environment", {})
        found = {}
        for name, value in values.items():
            here = re.sub(VARIABLE, self._given, str(value))
            for theirs, ours in self._replacements.items():
                here = here.replace(theirs, ours)
            found[name] = here
        if "AUTORENEW_METRICS_PORT" in found:
            found["AUTORENEW_METRICS_PORT"] = str(self.ports[service])
            found["AUTORENEW_METRICS_HOST"] = "127.0.0.1"
        return found

    def _given(self, variable: re.Match[str]) -> str:
        name, kind, default = variable.groups()
        if kind == "?":
            return self._passwords.setdefault(name, secrets.token_hex(24))
        return self._passwords.get(name, default)

    def command(self, service: str) -> list[str]:
        words = [word.replace("/data", str(self._folder)) for word in SERVICES[service]["command"]]
        if service == "simulator":
            words[words.index("0.0.0.0")] = "127.0.0.1"
            words[words.index("--smtp-port") + 1] = str(free_port())
            words += ["--port", str(self.ports[service])]
        return [sys.executable, "-m", "autorenew", *words]

    def start(self, service: str) -> subprocess.Popen[bytes]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AUTORENEW_")}
        with (self._folder / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(service),
                env=inherited | self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[service] = process
        return process

    def run(self, service: str, *words: str) -> str:
        """A one-shot job; with ``words``, another command in the same environment."""
        command = [sys.executable, "-m", "autorenew", *words] if words else self.command(service)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AUTORENEW_")}
        done = subprocess.run(
            command,
            env=inherited | self.environment(service),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == (1 if "place" in words else 0), done.stderr or done.stdout
        return done.stdout

    def log(self, service: str) -> list[dict[str, Any]]:
        """What the service logged: a JSON object a line, from its first one on."""
        text = (self._folder / f"{service}.log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def metrics(self, service: str) -> str | None:
        """What the service serves; None as long as it serves nothing."""
        try:
            with urlopen(f"http://127.0.0.1:{self.ports[service]}/metrics", timeout=3) as answer:
                return str(answer.read().decode())
        except OSError:
            return None

    def stop(self) -> dict[str, int]:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        codes = {name: process.wait(60) for name, process in self.processes.items()}
        self.processes.clear()
        return codes


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture
def deployment(
    postgres: PrivatePostgres, rabbitmq: PrivateRabbitMQ, mailbox: Mailbox, tmp_path: Path
) -> Iterator[Deployment]:
    postgres.ensure_database(DATABASE)
    rabbitmq.add_vhost(DATABASE)
    deployment = Deployment(postgres, rabbitmq, mailbox, tmp_path)
    yield deployment
    deployment.stop()
    rabbitmq.delete_vhost(DATABASE)
    postgres.drop_database(DATABASE)


def publish(deployment: Deployment, documents: list[Any]) -> None:
    """As upstream, with the credentials the file gives it."""
    admin = deployment.environment("broker-setup")
    password = json.loads(admin["AUTORENEW_BROKER_PASSWORDS"])["upstream"]
    url = re.sub(r"//[^@]*@", f"//upstream:{password}@", admin["AUTORENEW_BROKER_URL"])
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(user_id="upstream", delivery_mode=2)
    for document in documents:
        body = json.dumps(document).encode()
        channel.basic_publish("intake", "", body, properties, mandatory=True)
    connection.close()


def where_it_is_day() -> str:
    """A subsidiary where e-mails may be sent now: none is sent before the morning."""
    now = datetime.now(UTC)
    zones = {"FR": "Europe/Paris", "CA": "America/Toronto", "AU": "Australia/Sydney"}
    return next(code for code, name in zones.items() if 8 <= now.astimezone(zone(name)).hour < 23)


def old_world(folder: Path, subsidiary: str) -> Path:
    """A file to import, with one service that expires soon."""
    expires_on = datetime.now(UTC).date() + timedelta(days=2)
    file = folder / "old.csv"
    file.write_text(
        "customer,plan,period,resource_id,expires_on,payment_method,contract_version,"
        "subsidiary,country,language,email\n"
        f"jean,mail-pro,P1M,mail/4711,{expires_on},tok-jean,3,{subsidiary},{subsidiary},fr,"
        "jean@example.com\n"
    )
    return file


def test_the_composed_fleet_delivers_renews_and_drains(
    deployment: Deployment, postgres: PrivatePostgres, mailbox: Mailbox, tmp_path: Path
) -> None:
    for job in ("migrate", "broker-setup", "catalogue"):
        deployment.run(job)
        deployment.run(job)  # every one may run again
    for service in ("simulator", *FLEET):
        deployment.start(service)
    for service in FLEET:
        wait_until(
            lambda s=service: deployment.metrics(s) is not None, f"{service} serves metrics", 60
        )

    said = deployment.run("intake", "order", "place", str(EXAMPLES))
    assert "4 accepted, 1 refused" in said
    documents = list(demo_orders(bundled(), 60, seed=7))
    publish(deployment, documents)

    engine = connect(postgres.url(DATABASE))
    query = "SELECT count(*) FROM orders WHERE ended_at IS NOT NULL OR state = 'refused'"

    def ended() -> int:
        with engine.connect() as tx:
            return int(tx.exec_driver_sql(query).scalar_one())

    # Documents whose shape is wrong under a good key are refused orders as well.
    wait_until(lambda: ended() == 65, "every order ends", 90)

    subsidiary = where_it_is_day()
    deployment.run("catalogue", "rollout", "set", "ovh", subsidiary, "2020-01-01")
    deployment.run("intake", "service", "import", "--upstream", "upstream",
                   str(old_world(tmp_path, subsidiary)))  # fmt: skip

    def told() -> list[EmailMessage]:  # customers of the orders are told of their deliveries, too
        return [mail for mail in mailbox.messages if mail["To"] == "jean@example.com"]

    wait_until(told, "the customer of what was taken over is told", 30)
    (mail,) = told()
    body = mail.get_body(("plain",))
    assert body is not None
    # Clicks, as the page behind the links makes commands of them.
    given = deployment.environment("worker-reminders")
    links = Links(given["AUTORENEW_LINK_BASE_URL"], given["AUTORENEW_LINK_SECRET"])
    urls = re.findall(r"https?://\S+/do/\S+", body.get_content())
    now = datetime.now(UTC)
    commands = {(command := links.open(url, now))["command"]: command for url in urls}

    def taken_over() -> Any:
        with engine.connect() as tx:
            return tx.exec_driver_sql("SELECT * FROM services WHERE customer_id = 'jean'").one()

    publish(deployment, [commands["renew"]])
    wait_until(lambda: taken_over().paid_periods == 1, "one click renews it", 30)
    publish(deployment, [commands["renew"], commands["stop"]])
    wait_until(lambda: taken_over().mode == "stop", "and another one stops it", 30)
    assert taken_over().paid_periods == 1
    engine.dispose()

    deployment.run("audit")
    timeline = deployment.run("intake", "order", "show", "example-1")
    for event in ("order.accepted", "order.priced", "order.paid", "service.delivered"):
        assert event in timeline

    expected = {
        "intake": "autorenew_intake_documents_total",
        "relay": "autorenew_relay_messages_total",
        "worker-orders": 'autorenew_tasks_total{outcome="done",queue="orders",task="price"}',
        "worker-billing": 'autorenew_calls_total{operation="charge",outcome="succeeded"',
        "scheduler": 'autorenew_swept_services_total{step="request"}',
        "worker-reminders": 'autorenew_calls_total{operation="send",outcome="sent",target="smtp"}',
        "worker-web": 'autorenew_calls_total{operation="create",outcome="done"',
    }
    for service, metric in expected.items():
        assert metric in (deployment.metrics(service) or "")
    for metric in ("task_batch_seconds", "task_wait_seconds", "task_batch_size", "call_seconds"):
        assert f"autorenew_{metric}_bucket" in (deployment.metrics("worker-dedicated") or "")

    codes = deployment.stop()
    assert codes == dict.fromkeys(codes, 0)
    assert set(codes) == {"simulator", *FLEET}
    for service in FLEET:
        lines = deployment.log(service)
        assert {line["level"] for line in lines} <= {"INFO", "WARNING"}, service
        assert all(line["process"].startswith(service.partition("-")[0]) for line in lines)
