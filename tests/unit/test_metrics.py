"""Metrics: many values at once, requests by route, and those of a worker group's processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from monitoring import metrics
from producers.web.serving import WebServer
from workers.group_metrics import GroupMetrics, children_of


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=50))
def test_many_values_at_once_are_observed_as_each_by_itself(values: list[float]) -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    one, many = (
        Histogram("wait_seconds", "?", ["queue"], buckets=(0.1, 1, 10, 3600), registry=registry)
        for registry in registries
    )
    for value in values:
        one.labels("web").observe(value)
    metrics.observe_many(many.labels("web"), values)

    def told(registry: CollectorRegistry) -> dict[Any, Any]:
        return {
            (s.name, s.labels.get("le", "")): pytest.approx(s.value)
            for metric in registry.collect()
            for s in metric.samples
            if not s.name.endswith("_created")
        }

    assert told(registries[0]) == told(registries[1])


def value(name: str, **labels: str) -> float:
    from prometheus_client import REGISTRY

    return REGISTRY.get_sample_value(name, labels) or 0.0


def _app(kind: str) -> Any:
    async def show(request: Any) -> PlainTextResponse:
        return PlainTextResponse("here")

    if kind == "fastapi":
        app = FastAPI()
        router = APIRouter(prefix="/orders")

        @app.get("/orders/{key}")
        @router.get("/{key}")
        async def order(key: str) -> str:
            return key

        app.include_router(router, prefix="/v2")
        return app
    return Starlette(routes=[Mount("/v1", routes=[Route("/orders/{key}", show, methods=["GET"])])])


@pytest.mark.parametrize(
    ("kind", "prefix"), [("fastapi", ""), ("fastapi", "/v2"), ("starlette", "/v1")]
)
def test_requests_are_counted_by_the_template_of_their_route(kind: str, prefix: str) -> None:
    door = kind + prefix
    with (
        WebServer(_app(kind), host="127.0.0.1", port=0, name=door) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for key in ("a", "b"):
            client.get(f"{prefix}/orders/{key}")
        client.get("/nowhere/at/all")
        client.request("PROPFIND", f"{prefix}/orders/a")

    name, route = "autorenew_http_requests_total", f"{prefix}/orders/{{key}}"
    assert value(name, server=door, method="GET", route=route, status="200") == 2
    assert value(name, server=door, method="GET", route="unmatched", status="404") == 1
    assert value("autorenew_http_request_seconds_count", server=door, route=route) >= 2
    assert value(name, server=door, method="OTHER", route=route, status="405") == 1


WORKER = """
import sys
from monitoring import metrics
metrics.tasks_ended.labels("web", "converge", "done").inc(3)
metrics.observe_many(metrics.task_waited.labels("web", "converge"), [0.5, 2.0])
metrics.calls_under_way.labels("converge").inc(7)
print("counted", flush=True)
sys.stdin.read()
"""


def worker(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def scraped(group: GroupMetrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(group)
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


DONE = 'autorenew_tasks_total{outcome="done",queue="web",task="converge"}'
WAITED = 'autorenew_task_wait_seconds_count{queue="web",task="converge"}'
UNDER_WAY = 'autorenew_calls_under_way{task="converge"}'


def test_group_that_is_started_again_keeps_its_counters_and_no_files(tmp_path: Path) -> None:
    group = GroupMetrics(tmp_path)
    sizes = []
    for _ in range(3):
        process = worker(tmp_path)
        assert scraped(group)[UNDER_WAY] == 7
        end(process)
        group.bury()
        group.restarted()
        sizes.append(len(list(tmp_path.glob("*.db"))))

    found = scraped(group)

    assert found[DONE] == 9
    assert found[WAITED] == 6
    assert UNDER_WAY not in found
    assert found["autorenew_worker_group_restarts_total"] == 3
    assert sizes == [2, 2, 2]


def test_file_that_a_killed_process_left_half_written_hides_no_other(tmp_path: Path) -> None:
    group = GroupMetrics(tmp_path)
    process = worker(tmp_path)
    (tmp_path / "counter_99999.db").write_bytes(b"\xff\x00\x00\x7f" + b"\xff" * 60)
    (tmp_path / "histogram_99998.db").write_bytes(b"")

    before = scraped(group)
    end(process)
    group.bury()

    assert before[DONE] == scraped(group)[DONE] == 3


def test_each_process_of_a_group_tells_its_cpu_memory_and_files(tmp_path: Path) -> None:
    processes = [worker(tmp_path), worker(tmp_path)]
    pids = children_of(os.getpid())
    group = GroupMetrics(tmp_path, lambda: list(enumerate_names(processes)))

    found = scraped(group)

    assert {process.pid for process in processes} <= set(pids)
    for name in ("0", "1"):
        assert found[f'process_resident_memory_bytes{{worker="{name}"}}'] > 1e6
        assert found[f'process_cpu_seconds_total{{worker="{name}"}}'] > 0
        assert found[f'process_open_fds{{worker="{name}"}}'] >= 3
        assert found[f'process_start_time_seconds{{worker="{name}"}}'] > 1e9
    for process in processes:
        end(process)
    assert not any("process_" in name for name in scraped(group))


def enumerate_names(processes: list[subprocess.Popen[bytes]]) -> list[tuple[str, int]]:
    return [(str(n), process.pid) for n, process in enumerate(processes)]
