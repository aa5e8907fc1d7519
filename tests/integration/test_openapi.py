"""The simulator does what its own document says, whatever it is sent: schemathesis tries."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3

from simulator.server import Running

CONFIGURATION = Path(__file__).parents[1] / "support/schemathesis.toml"
DOCUMENT = Path(__file__).parents[2] / "simulator/infrastructure.openapi.yaml"
TOKEN = "secret-7"

Try = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tried(tmp_path: Path) -> Try:
    """Runs schemathesis against a simulator with these rules, over the document it serves: its
    examples, the edges of every field, random requests, and sequences of requests."""

    def run(*rules: dict[str, Any], options: tuple[str, ...] = (), document: str = "") -> Any:
        with Running(rules=list(rules), token=TOKEN) as simulator:
            result = subprocess.run(
                [
                    sys.executable, "-m", "schemathesis.cli",
                    "--config-file", CONFIGURATION, "run",
                    document or f"{simulator.url}/openapi.yaml",
                    "--url", f"{simulator.url}/infrastructure/web",
                    "--header", f"Authorization: Bearer {TOKEN}",
                    "--checks", "all", "--seed", "1", "--max-examples", "40", "--no-color",
                    *options,
                ],
                cwd=tmp_path,  # it leaves a folder there
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )  # fmt: skip
        simulator.simulator.store.close()
        return result

    return run


def assert_good(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert "3 selected / 3 total" in result.stdout
    assert "No issues found" in result.stdout


def test_whatever_is_sent_is_answered_as_documented_and_nothing_breaks(tried: Try) -> None:
    assert_good(tried())


def test_faults_are_answered_as_documented(tried: Try) -> None:
    # Given a far side that is slow, busy, in maintenance, out of stock, forbidden or broken
    faults: list[dict[str, Any]] = [
        {"fault": "busy", "seconds": 3},
        {"fault": "maintenance"},
        {"fault": "refuse"},
        {"fault": "forbid"},
        {"fault": "error"},
        {"fault": "in_progress", "seconds": 0.2},
        {"fault": "in_progress", "seconds": 0.2, "reason": "out_of_stock"},
    ]
    some = [fault | {"target": "infrastructure", "rate": 0.2} for fault in faults]
    assert_good(tried(*some, options=("--exclude-checks", "not_a_server_error")))


@pytest.mark.parametrize(
    ("said", "instead", "complaint"),
    [
        ("'404':", "'410':", "Undocumented status code"),
        ("enum: [active, suspended, absent]", "enum: [running]", "Response violates schema"),
        ("maxLength: 500", "maxLength: 50", "Schema-violating request accepted"),
    ],
)
def test_what_differs_from_the_document_is_noticed(
    tried: Try, tmp_path: Path, said: str, instead: str, complaint: str
) -> None:
    document = DOCUMENT.read_text()
    assert said in document
    (tmp_path / "changed.yaml").write_text(document.replace(said, instead))

    result = tried(
        document=str(tmp_path / "changed.yaml"), options=("--phases", "examples,coverage,stateful")
    )

    assert result.returncode == 1, result.stdout[-3000:]
    assert complaint in result.stdout


def test_document_is_served_as_it_is_shipped() -> None:
    with Running() as simulator:
        answer = urllib3.request("GET", f"{simulator.url}/openapi.yaml")
    assert (answer.status, answer.data) == (200, DOCUMENT.read_bytes())
    assert answer.headers["content-type"].startswith("application/yaml")
