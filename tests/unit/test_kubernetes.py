"""The manifests of deploy/kubernetes/, as kustomize builds them, checked without a cluster.

Kinds of Kubernetes are checked by ``kubernetes-validate`` (unknown fields refused), those of KEDA
and of the Prometheus operator by the schemas of their custom resource definitions in
tests/support/crds.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from monitoring.exporter.families import OLDEST_READY
from producers.steps import QUEUES
from schemas.settings import Settings
from schemas.values import Universe
from tests.support.servers import kubectl

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
CRDS = ROOT / "tests/support/crds"
COMPOSE = ROOT / "docker-compose.yml"
VERSIONS = ("1.31", "1.37")
WORKERS = tuple(f"worker-{queue if queue != 'webhooks' else 'events'}" for queue in QUEUES)
BACKGROUND = ("intake", "relay", "scheduler", *WORKERS)

Manifest = dict[str, Any]


@cache
def built(overlay: str) -> tuple[Manifest, ...]:
    """What kustomize makes of a folder; skipped where kubectl cannot be had."""
    done = subprocess.run(
        [str(kubectl()), "kustomize", str(FOLDER / overlay)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # warnings of what is deprecated
    return tuple(yaml.safe_load_all(done.stdout))


def of(kind: str, overlay: str = "overlays/example") -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in built(overlay) if m["kind"] == kind}


def pod(manifest: Manifest) -> Manifest:
    spec = manifest["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def container(manifest: Manifest) -> Manifest:
    (found,) = pod(manifest)["containers"]
    assert isinstance(found, dict)
    return found


def labels(manifest: Manifest) -> dict[str, str]:
    found = manifest["spec"]["template"]["metadata"]["labels"]
    assert isinstance(found, dict)
    return found


def processes() -> dict[str, Manifest]:
    return of("Deployment") | of("Job")


def selects(selector: Manifest, given: Mapping[str, str]) -> bool:
    """Whether a label selector matches."""
    for key, value in selector.get("matchLabels", {}).items():
        if given.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", []):
        value = given.get(rule["key"])
        matches = {
            "In": value in rule.get("values", []),
            "NotIn": value not in rule.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[rule["operator"]]
        if not matches:
            return False
    return True


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schema_of_its_kind(version: str) -> None:
    for manifest in built("overlays/example"):
        if manifest["apiVersion"].partition("/")[0] in ("keda.sh", "monitoring.coreos.com"):
            schema = json.loads((CRDS / f"{manifest['kind']}.json").read_text())
            jsonschema.Draft202012Validator(schema).validate(manifest)
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_what_is_patched_by_name_is_there() -> None:
    """An overlay's policy for a gateway outside replaces the one inside."""
    policy = of("NetworkPolicy")["gateway"]["spec"]["egress"]
    assert policy == [
        {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"protocol": "TCP", "port": 443}]}
    ]
    assert of("NetworkPolicy", "base")["gateway"]["spec"]["egress"] != policy
    images = {container(manifest)["image"] for manifest in processes().values()}
    assert images == {"registry.example.net/backoffice/autorenew:0.1.0"}


def test_a_wrong_field_is_found() -> None:
    """What these schemas are worth."""
    wrong = json.loads(json.dumps(of("ScaledObject")["worker-web"]))
    wrong["spec"]["maxReplicas"] = 3
    schema = json.loads((CRDS / "ScaledObject.json").read_text())
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        jsonschema.Draft202012Validator(schema).validate(wrong)
    wrong = json.loads(json.dumps(of("Deployment")["relay"]))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_every_role_of_the_composed_fleet_is_deployed_with_the_same_command() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    ours = {name: service for name, service in services.items() if "build" in service}
    jobs = {name for name, service in ours.items() if service["restart"] == "no"}

    for name, service in ours.items():
        if name in ("simulator", "audit"):
            continue
        manifest = of("Job" if name in jobs else "Deployment")[name]
        assert container(manifest)["args"] == service["command"], name
        assert container(manifest)["name"] == "autorenew"
        assert "command" not in container(manifest)  # the image's entry point


def test_every_queue_has_a_worker_that_scales_by_the_age_of_its_oldest_task() -> None:
    scaled = of("ScaledObject")

    assert set(scaled) == set(WORKERS) <= set(of("Deployment"))
    for queue, name in zip(QUEUES, WORKERS, strict=True):
        spec = scaled[name]["spec"]
        (trigger,) = spec["triggers"]
        assert spec["scaleTargetRef"] == {"name": name}
        assert trigger["type"] == "prometheus"
        assert trigger["metricType"] == "AverageValue"
        assert trigger["metadata"]["query"] == f'max({OLDEST_READY.name}{{queue="{queue}"}})'
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"] <= 10
        assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
        assert "idleReplicaCount" not in spec
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert down["stabilizationWindowSeconds"] >= 300


def test_processes_have_least_rights() -> None:
    for name, manifest in processes().items():
        spec, one = pod(manifest), container(manifest)
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert {"cpu", "memory"} <= set(one["resources"]["requests"])
        assert "memory" in one["resources"]["limits"]
        assert not re.search(r":latest$|^[^:]+$", one["image"])
    namespace = of("Namespace")["autorenew"]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"


def test_stopping_waits_longer_than_a_process_needs_to_drain() -> None:
    given = of("ConfigMap")["autorenew"]["data"]
    call, drain = (float(given[f"AUTORENEW_{n}_SECONDS"]) for n in ("CALL", "SHUTDOWN"))

    for manifest in of("Deployment").values():
        assert 2 * call < drain < pod(manifest)["terminationGracePeriodSeconds"]
        strategy = manifest["spec"]["strategy"]["rollingUpdate"]
        assert strategy == {"maxSurge": 1, "maxUnavailable": 0}


def test_doors_are_probed_at_their_health_and_others_at_their_start_only() -> None:
    for name, manifest in of("Deployment").items():
        one = container(manifest)
        ports = {port["name"] for port in one["ports"]}
        if name in BACKGROUND:
            assert one["startupProbe"]["httpGet"] == {"path": "/metrics", "port": "metrics"}
            assert not {"livenessProbe", "readinessProbe"} & set(one)
        else:
            assert one["readinessProbe"]["httpGet"]["path"] == "/readyz"
            assert one["livenessProbe"]["httpGet"]["path"] == "/healthz"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in one:
                assert one[probe]["httpGet"]["port"] in ports


def test_a_drained_node_takes_one_of_a_role_at_a_time() -> None:
    budgets = of("PodDisruptionBudget")
    assert set(budgets) == set(of("Deployment"))
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        assert selects(budget["spec"]["selector"], labels(of("Deployment")[name]))


def test_settings_exist_and_secrets_are_only_named() -> None:
    fields = {f"AUTORENEW_{name.upper()}" for name in Settings.model_fields}
    secret = re.compile("PASSWORD|TOKEN|SECRET|DATABASE_URL|BROKER")

    assert not of("Secret")
    for config in of("ConfigMap").values():
        assert set(config["data"]) <= fields, config["metadata"]["name"]
        assert not [name for name in config["data"] if secret.search(name)]
    for name, manifest in processes().items():
        sources = container(manifest)["envFrom"]
        configs = [s["configMapRef"]["name"] for s in sources if "configMapRef" in s]
        assert set(configs) <= set(of("ConfigMap")), name
        assert "env" not in container(manifest)
        # No two processes with different rights share one.
        (named,) = [s["secretRef"]["name"] for s in sources if "secretRef" in s]
        if name not in ("migrate", "catalogue"):
            assert named == (
                "autorenew-broker-admin" if name == "broker-setup" else f"autorenew-{name}"
            )


def test_every_secret_is_described() -> None:
    page = (ROOT / "docs/how-to/run-on-kubernetes.md").read_text()
    for manifest in processes().values():
        for source in container(manifest)["envFrom"]:
            if "secretRef" in source:
                assert f"`{source['secretRef']['name']}`" in page


def egress(name: str) -> set[str]:
    """Where a process may go, as ``label=value:port``."""
    found = set()
    for policy in of("NetworkPolicy", "base").values():
        if selects(policy["spec"]["podSelector"], labels(processes()[name])):
            for rule in policy["spec"].get("egress", []):
                for peer in rule["to"]:
                    whom = peer.get("podSelector", {}).get("matchLabels", {"outside": "internet"})
                    found |= {
                        f"{value}:{port['port']}"
                        for value in whom.values()
                        for port in rule["ports"]
                    }
    return found - {"kube-dns:53"}


def test_each_process_reaches_what_it_needs_and_nothing_else() -> None:
    database, broker = "postgresql:5432", "rabbitmq:5671"
    expected = {
        "intake": {database, broker},
        "relay": {database, broker},
        "scheduler": {database},
        "worker-orders": {database, broker},
        "worker-billing": {database, broker, "gateway:443"},
        "worker-reminders": {database, broker, "mail:465"},
        **{f"worker-{u}": {database, broker, "infrastructure:443"} for u in Universe},
        "worker-events": {database, broker, "internet:443"},
        "api": {database},
        "pages": {database},
        "console": {database},
        "exporter": {database, broker},
        "migrate": {database},
        "catalogue": {database},
        "broker-setup": {broker, "rabbitmq:15671"},
    }
    assert {name: egress(name) for name in processes()} == expected


def test_nothing_is_let_in_but_scrapes_and_requests_to_doors() -> None:
    everywhere = of("NetworkPolicy")["nothing-else"]["spec"]
    assert everywhere == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, manifest in of("Deployment").items():
        ports = {
            port["port"]
            for policy in of("NetworkPolicy").values()
            if selects(policy["spec"]["podSelector"], labels(manifest))
            for rule in policy["spec"].get("ingress", [])
            for port in rule["ports"]
        }
        assert ports == (
            {"metrics", "http"} if name in ("api", "pages", "console") else {"metrics"}
        )


def test_every_process_is_scraped_once_and_by_a_port_that_it_has() -> None:
    for name, manifest in of("Deployment").items():
        scraping = [
            monitor
            for monitor in of("PodMonitor").values()
            if selects(monitor["spec"]["selector"], labels(manifest))
        ]
        assert len(scraping) == 1, name
        (endpoint,) = scraping[0]["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {port["name"] for port in container(manifest)["ports"]}


def test_services_lead_to_doors() -> None:
    for name, service in of("Service").items():
        manifest = of("Deployment")[name]
        assert service["spec"]["selector"].items() <= labels(manifest).items()
        (port,) = service["spec"]["ports"]
        assert port["targetPort"] in {p["name"] for p in container(manifest)["ports"]}
    (ingress,) = of("Ingress").values()
    reached = {
        path["backend"]["service"]["name"]
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    }
    assert reached == {"api", "pages"}  # never the console
