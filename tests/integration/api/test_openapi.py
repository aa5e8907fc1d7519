"""The API does what its own document says, whatever it is sent: schemathesis tries."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Client, make_key
from tests.support.given import line, order
from tests.support.life import Life

CONFIGURATION = Path(__file__).parents[2] / "support/schemathesis.toml"


@pytest.fixture(scope="module")
def filled(world: Life, shop: Client) -> str:
    """An order with two services, to be found. Returns a key for all that a realm does."""
    shop("POST", "/v1/orders?wait=30", order("order-1", line("site"), line("vm"), customer="c-1"))
    return make_key(world.fleet.engine("api"), "tried")


def tried(url: str, key: str, tmp_path: Path, *options: str) -> str:
    """Runs schemathesis over the whole document with a key; what it says."""
    result = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli",
            "--config-file", CONFIGURATION, "run", f"{url}/v1/openapi.json",
            "--header", f"Authorization: Bearer {key}",
            "--checks", "all", "--seed", "1", "--no-color", *options,
        ],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
             "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path,  # it leaves a folder there
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    return result.stdout


def test_whatever_a_realm_sends_is_answered_as_documented(
    server: Any, filled: str, tmp_path: Path
) -> None:
    tried(server.url, filled, tmp_path, "--max-examples", "15")


def test_whatever_an_operator_sends_is_answered_as_documented(
    server: Any, filled: str, world: Life, tmp_path: Path
) -> None:
    key = make_key(world.fleet.engine("api"), "operator", upstream=None)
    tried(
        server.url, key, tmp_path, "--max-examples", "15",
        "--include-path-regex", "/v1/(failed|bulk|lanes|forecast|audit)",
    )  # fmt: skip


def test_every_route_and_code_is_documented(server: Any, shop: Client) -> None:
    document = shop("GET", "/v1/openapi.json").json
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert {"401", "403", "429", "503"} <= operation["responses"].keys(), (method, path)
            for status, response in operation["responses"].items():
                assert response["description"], (method, path, status)
                if not status.startswith("2"):
                    assert list(response["content"]) == ["application/problem+json"]
                    assert "example" in response["content"]["application/problem+json"]
