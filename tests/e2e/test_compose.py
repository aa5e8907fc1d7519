"""The container files, as far as they can be checked without a container engine."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
from ruamel.yaml import YAML

from autorenew.cli import main
from producers.steps import QUEUES
from producers.topology import INTAKE_QUEUE, PERMISSIONS
from schemas.settings import Settings, load_settings
from schemas.tables import ROLES
from schemas.values import Universe
from workers.bootstrap import check_queues

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"

# service -> (database user, broker user, the outside's credentials): all it may know.
CREDENTIALS: dict[str, tuple[str | None, str | None, set[str]]] = {
    "migrate": ("autorenew", None, set()),
    "catalogue": ("autorenew", None, set()),
    "broker-setup": (None, "admin", set()),
    "intake": ("autorenew_api", "intake", set()),
    "relay": ("autorenew_relay", "relay", set()),
    "scheduler": ("autorenew_scheduler", None, set()),
    "worker-orders": ("autorenew_orders", "orders", set()),
    "worker-billing": ("autorenew_billing", "billing", {"GATEWAY_TOKEN"}),
    "worker-reminders": ("autorenew_reminders", "reminders", {"SMTP_URL", "LINK_SECRET"}),
    "worker-events": ("autorenew_events", "events", set()),
    **{
        f"worker-{universe}": (
            "autorenew_provisioning",
            "provisioning",
            {f"{universe.upper()}_TOKEN"},
        )
        for universe in Universe
    },
    "api": ("autorenew_api", None, {"READONLY_PASSWORD"}),
    "console": ("autorenew_console", None, {"READONLY_PASSWORD"}),
    "pages": ("autorenew_api", None, {"READONLY_PASSWORD", "LINK_SECRET"}),
    "exporter": ("autorenew_exporter", "exporter", set()),
    "simulator": (None, None, set()),
    "audit": ("autorenew_readonly", None, set()),
}
PASSWORDS = {
    "autorenew": "OWNER_PASSWORD",
    "admin": "BROKER_ADMIN_PASSWORD",
    "autorenew_api": "INTAKE_PASSWORD",
    "autorenew_relay": "RELAY_PASSWORD",
    "autorenew_orders": "ORDERS_PASSWORD",
    "autorenew_billing": "BILLING_PASSWORD",
    "autorenew_reminders": "REMINDERS_PASSWORD",
    "autorenew_provisioning": "PROVISIONING_PASSWORD",
    "autorenew_scheduler": "SCHEDULER_PASSWORD",
    "autorenew_readonly": "READONLY_PASSWORD",
    "autorenew_exporter": "EXPORTER_PASSWORD",
    "exporter": "EXPORTER_PASSWORD",
    "autorenew_events": "EVENTS_PASSWORD",
    "events": "EVENTS_PASSWORD",
    "autorenew_console": "CONSOLE_PASSWORD",
    "intake": "INTAKE_PASSWORD",
    "relay": "RELAY_PASSWORD",
    "orders": "ORDERS_PASSWORD",
    "billing": "BILLING_PASSWORD",
    "reminders": "REMINDERS_PASSWORD",
    "provisioning": "PROVISIONING_PASSWORD",
}
FLEET = (
    "intake", "relay", "scheduler", *(name for name in CREDENTIALS if name.startswith("worker-")),
)  # fmt: skip
"""Of each any number can run."""
# What people and systems outside reach: each has a port of the host.
DOORS = {"api": 8080, "pages": 8081, "console": 8070}
WATCH = ("prometheus", "alertmanager", "grafana")
PROCESSES = (*FLEET, *DOORS, "exporter")
OURS = tuple(CREDENTIALS)


def compose() -> dict[str, Any]:
    document = YAML(typ="safe", pure=True).load(COMPOSE.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


SERVICES: dict[str, dict[str, Any]] = compose()["services"]


# ${NAME:-default}, or ${NAME:?what to do without one}
VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


def environment(service: str) -> dict[str, str]:
    """A service's environment, with every secret replaced by ``secret-of-`` its name."""
    values = SERVICES[service].get("environment", {})
    return {name: re.sub(VARIABLE, _stand_in, str(value)) for name, value in values.items()}


def _stand_in(variable: re.Match[str]) -> str:
    name, kind, default = variable.groups()
    if kind == "-" and not default:
        return ""  # not given
    if name == "SMTP_URL":  # has the mail server's password in it
        return f"smtp://secret-of-{name}"
    return f"secret-of-{name}" if kind == "?" else default


def secrets_of(service: str) -> set[str]:
    return set(re.findall(r"secret-of-(\w+)", json.dumps(environment(service))))


def seconds(duration: str) -> float:
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert match, duration
    return 60 * int(match[1] or 0) + int(match[2] or 0)


def test_the_file_fits_the_compose_specification() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(COMPOSE)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_composed_service_of_ours_is_tested_here() -> None:
    built = {name for name, service in SERVICES.items() if "build" in service}

    assert built == set(OURS)
    assert set(SERVICES) - built == {"rabbitmq", "postgres", *WATCH}


@pytest.mark.parametrize("service", OURS)
def test_composed_service_runs_a_valid_command(service: str) -> None:
    arguments = list(SERVICES[service]["command"])
    command: click.Command = main
    context = click.Context(main, info_name="autorenew")

    while isinstance(command, click.Group):
        found = command.get_command(context, arguments.pop(0))
        assert found is not None, SERVICES[service]["command"]
        command = found

    command.make_context(command.name, arguments, parent=context)  # raises for what is not accepted


@pytest.mark.parametrize("service", OURS)
def test_composed_settings_are_valid(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {f"AUTORENEW_{name.upper()}" for name in Settings.model_fields}
    given = environment(service)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert {name for name in given if name.startswith("AUTORENEW_")} <= fields
    load_settings()  # raises for a value that is not understood


@pytest.mark.parametrize("service", OURS)
def test_composed_service_has_its_own_credentials_only(service: str) -> None:
    database_user, broker_user, outside = CREDENTIALS[service]
    given = environment(service)
    expected = set(outside)

    for variable, user in (
        ("AUTORENEW_DATABASE_URL", database_user),
        ("AUTORENEW_BROKER_URL", broker_user),
    ):
        assert (variable in given) == (user is not None)
        if user is not None:
            url = urlsplit(given[variable])
            assert (url.username, url.password) == (user, f"secret-of-{PASSWORDS[user]}")
            expected.add(PASSWORDS[user])

    if service in ("migrate", "broker-setup"):  # they hand the passwords out
        assert expected < secrets_of(service)
    else:
        assert secrets_of(service) == expected


def test_setup_jobs_set_the_passwords_that_the_processes_use() -> None:
    roles = json.loads(environment("migrate")["AUTORENEW_ROLE_PASSWORDS"])
    users = json.loads(environment("broker-setup")["AUTORENEW_BROKER_PASSWORDS"])

    assert set(roles) == set(ROLES)
    assert set(users) == set(PERMISSIONS)
    for service, (database_user, broker_user, _) in CREDENTIALS.items():
        if database_user and database_user != "autorenew":
            role = database_user.removeprefix("autorenew_")
            assert roles[role] == f"secret-of-{PASSWORDS[database_user]}", service
        if broker_user and broker_user != "admin":
            assert users[broker_user] == f"secret-of-{PASSWORDS[broker_user]}", service


def test_the_servers_know_the_passwords_of_their_administrators_only() -> None:
    assert secrets_of("postgres") == {"OWNER_PASSWORD"}
    assert secrets_of("rabbitmq") == {"BROKER_ADMIN_PASSWORD"}


def test_no_secret_has_a_default_and_the_script_that_is_named_makes_all(tmp_path: Path) -> None:
    text = COMPOSE.read_text()
    without = {n: said for n, kind, said in VARIABLE.findall(text) if kind == "?"}
    defaults = {n: default for n, kind, default in VARIABLE.findall(text) if kind == "-"}

    assert set(without.values()) == {"run scripts/make-env.sh"}
    assert {n: d for n, d in defaults.items() if re.search("PASSWORD|TOKEN|SECRET", n)} == {
        "LINK_SECRET_PREVIOUS": ""
    }
    assert not re.search(r"PASS\w*: *\"?[\w-]+\"?$|development-only", text, re.MULTILINE)
    script = ROOT / "scripts/make-env.sh"
    subprocess.run(["sh", str(script), str(tmp_path / ".env")], check=True, capture_output=True)
    made = re.findall(r"^(\w+)=", (tmp_path / ".env").read_text(), re.MULTILINE)
    assert sorted(made) == sorted(without)


def test_secrets_are_never_part_of_a_commit_or_of_the_image() -> None:
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_internal_hosts_are_the_services_that_a_process_speaks_to() -> None:
    for service in OURS:
        given = environment(service)
        if service == "simulator":
            assert not given
            continue
        assert set(json.loads(given["AUTORENEW_INTERNAL_HOSTS"])) <= set(SERVICES)


def test_billing_knows_no_infrastructure_and_provisioning_no_gateway() -> None:
    billing = environment("worker-billing")
    assert not any("DRIVER" in name for name in billing)
    for universe in Universe:
        worker = environment(f"worker-{universe}")
        assert not any("GATEWAY" in name for name in worker)
        assert set(json.loads(worker["AUTORENEW_DRIVER_URLS"])) == {universe}
        assert set(json.loads(worker["AUTORENEW_DRIVER_TOKENS"])) == {universe}


def test_reminders_know_the_mail_server_and_with_the_pages_the_secret_of_links() -> None:
    for service in OURS:
        given = environment(service)
        assert ("AUTORENEW_SMTP_URL" in given) == (service == "worker-reminders")
        assert ("AUTORENEW_LINK_SECRET" in given) == (service in ("worker-reminders", "pages"))
    links = [environment(name)["AUTORENEW_LINK_BASE_URL"] for name in ("worker-reminders", "pages")]
    assert links == ["http://127.0.0.1:8081"] * 2


def test_every_queue_has_a_worker_whose_user_may_read_it() -> None:
    worked = {}
    for service in FLEET:
        if service.startswith("worker-"):
            for queue in check_queues(SERVICES[service]["command"][1:]):
                worked[queue] = CREDENTIALS[service][1]
    worked[INTAKE_QUEUE] = CREDENTIALS["intake"][1]

    assert set(worked) == {*QUEUES, INTAKE_QUEUE}
    for queue, user in worked.items():
        assert user is not None
        assert re.fullmatch(PERMISSIONS[user][2], queue)


@pytest.mark.parametrize("service", PROCESSES)
def test_stopping_waits_longer_than_a_process_needs_to_drain(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(service).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    grace = seconds(SERVICES[service]["stop_grace_period"])

    # What is in doubt is asked about first: two calls, one after the other.
    assert 2 * settings.call_seconds < settings.shutdown_seconds < grace


@pytest.mark.parametrize("service", PROCESSES)
def test_sigterm_reaches_the_launcher_alone(service: str) -> None:
    assert SERVICES[service]["stop_signal"] == "SIGTERM"
    assert SERVICES[service]["init"] is True
    assert "entrypoint" not in SERVICES[service]
    assert re.search(r'^ENTRYPOINT \["autorenew"\]$', DOCKERFILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("service", FLEET)
def test_any_number_of_a_process_can_run(service: str) -> None:
    """Only one container can have a fixed name or a port of the host."""
    assert "container_name" not in SERVICES[service]
    assert "ports" not in SERVICES[service]
    assert "volumes" not in SERVICES[service]


@pytest.mark.parametrize("service", FLEET)
def test_metrics_are_served_inside_the_network_and_tell_whether_a_process_lives(
    service: str,
) -> None:
    given = environment(service)

    assert given["AUTORENEW_METRICS_HOST"] == "0.0.0.0"
    assert given["AUTORENEW_METRICS_PORT"] in SERVICES[service]["expose"]
    check = SERVICES[service]["healthcheck"]["test"][-1]
    assert f":{given['AUTORENEW_METRICS_PORT']}/metrics" in check


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_its_limits_of_memory_and_cpu(service: str) -> None:
    limits = SERVICES[service]["deploy"]["resources"]["limits"]
    assert float(limits["cpus"]) > 0
    assert re.fullmatch(r"[1-9]\d*[MG]", limits["memory"])


def test_every_image_is_of_one_version() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    for image in (*bases, *(service["image"] for service in SERVICES.values())):
        name, _, tag = image.partition(":")
        assert re.match(r"\d+\.\d+" if name == "postgres" else r"v?\d+\.\d+\.\d+", tag), image
    assert {s["image"] for s in SERVICES.values() if "build" in s} == {f"autorenew:{ours}"}


def test_nothing_runs_as_root() -> None:
    (user,) = re.findall(r"^USER (.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert user.isdigit()
    assert int(user) > 0

    for name, service in SERVICES.items():
        if "build" in service:
            assert service.get("user") is None
        else:
            assert service["user"] not in ("root", "0")
        assert not service.get("privileged", False), name


def test_a_process_starts_when_what_it_needs_is_ready() -> None:
    jobs = {"migrate", "broker-setup", "catalogue"}
    for name, service in SERVICES.items():
        for other, how in dict(service.get("depends_on") or {}).items():
            if other in jobs:
                assert how["condition"] == "service_completed_successfully", name
            else:
                assert how["condition"] == "service_healthy", name
                assert "healthcheck" in SERVICES[other]
    for name in PROCESSES:
        assert {"broker-setup", "catalogue"} <= set(SERVICES[name]["depends_on"])
        assert SERVICES[name]["restart"] == "unless-stopped"
    for name in jobs:
        assert SERVICES[name]["restart"] == "no"


def test_the_outside_world_cannot_reach_database_or_broker() -> None:
    assert SERVICES["simulator"]["networks"] == ["outside"]
    for name in ("postgres", "rabbitmq"):
        assert SERVICES[name]["networks"] == ["inside"]
    beyond = {name for name, service in SERVICES.items() if "outside" in service["networks"]}
    calling = {
        "worker-billing", "worker-reminders", "worker-events",
        *(f"worker-{universe}" for universe in Universe),
    }  # fmt: skip
    assert beyond == {"simulator", "audit", *calling}


def test_what_watches_sees_the_fleet_and_no_secret_of_it() -> None:
    assert SERVICES["prometheus"]["networks"] == ["inside", "watch"]
    assert SERVICES["alertmanager"]["networks"] == SERVICES["grafana"]["networks"] == ["watch"]
    assert {secret for name in WATCH for secret in secrets_of(name)} == {"GRAFANA_PASSWORD"}
    for name in WATCH:
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]


def test_prometheus_scrapes_every_process_where_it_serves() -> None:
    file = ROOT / "monitoring/prometheus/prometheus.yml"
    jobs = YAML(typ="safe", pure=True).load(file.read_text())["scrape_configs"]
    scraped = {
        (name, config["port"])
        for job in jobs
        for config in job.get("dns_sd_configs", [])
        for name in config["names"]
    }
    served = {(name, 9100) for name in (*FLEET, *DOORS)} | {("exporter", 9187), ("rabbitmq", 15692)}

    assert served <= scraped
    plugins = compose()["configs"]["rabbitmq-plugins"]["content"]
    assert plugins == "[rabbitmq_management,rabbitmq_prometheus]."


def test_everything_that_is_mounted_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), (name, source)
                assert volume.endswith(":ro")
            else:
                assert source in compose()["volumes"]


@pytest.mark.parametrize("service", DOORS)
def test_a_door_is_healthy_once_it_can_do_its_work(service: str) -> None:
    port = DOORS[service]
    given = SERVICES[service]

    assert f"http://127.0.0.1:{port}/readyz" in given["healthcheck"]["test"][-1]
    assert given["command"][1:] == ["--host", "0.0.0.0", "--port", str(port)]
    assert [p.rpartition(":")[2] for p in given["ports"]] == [str(port)]
    assert environment(service)["AUTORENEW_METRICS_PORT"] == "9100"


def test_ports_of_the_host_are_open_on_its_loopback_interface_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_is_made_of_locked_dependencies_and_of_every_package() -> None:
    recipe = DOCKERFILE.read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert "pip install --require-hashes -r requirements/run.txt" in recipe
    copied = set(re.findall(r"^COPY (?!--)(.+) \S+$", recipe, re.MULTILINE))
    sources = {source for line in copied for source in line.split()}
    assert all((ROOT / source).exists() for source in sources)
    assert {line[1:] for line in ignored if line.startswith("!")} == sources
    packages = {folder.parent.name for folder in ROOT.glob("*/__init__.py")}
    assert packages - {"tests", "benchmarks"} <= sources
