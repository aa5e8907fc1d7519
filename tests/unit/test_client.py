"""What the Python client needs, and what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import producers
from producers import AsyncClient, Client
from producers.broker import Hosts
from producers.client import errors
from producers.client.amqp import Line, Sent
from producers.client.errors import NotDone, Problem, not_done
from tests.support.given import wait_until

ROOT = Path(__file__).parents[2]
PAGES = ("order.md", "commands.md")


def documented() -> set[str]:
    found: set[str] = set()
    for page in PAGES:
        codes = (ROOT / "docs/reference" / page).read_text().split("## Problem codes")[1]
        found |= set(re.findall(r"^\| `(\w+)` \|", codes, re.M))
    return found


def test_client_is_imported_without_database_and_web_server() -> None:
    unwanted = ("fastapi", "starlette", "uvicorn", "sqlalchemy", "psycopg", "alembic", "dramatiq")
    program = f"""
import sys
from producers import AsyncClient, Client
print(sorted({{name.split(".")[0] for name in sys.modules}} & set({unwanted!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_importing_producers_imports_no_client() -> None:
    program = "import sys, producers.steps; print('producers.client' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "False"


def test_packages_say_that_they_are_typed() -> None:
    assert (ROOT / "producers/py.typed").exists()
    assert (ROOT / "schemas/py.typed").exists()


def test_there_is_no_other_name_in_producers() -> None:
    with pytest.raises(AttributeError, match="Klient"):
        _ = producers.Klient


@pytest.mark.parametrize("code", sorted(documented()))
def test_every_documented_code_has_its_error(code: str) -> None:
    error = not_done([Problem(code, "lines.0", "no")])

    assert type(error).code == code
    assert str(error) == f"{code} at lines.0: no"


def test_every_code_of_the_api_has_its_error() -> None:
    from producers.api.problems import CODES

    for code in CODES:
        assert type(not_done([], code, detail="so")).code == code


def test_code_that_is_newer_than_the_client_is_an_error_as_well() -> None:
    error = not_done([Problem("brand_new", "", "no")], verdict="refused")

    assert type(error) is NotDone
    assert error.has("brand_new")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("ftp://example.com", {}, "must begin with"),
        ("example.com", {}, "must begin with"),
        ("https://example.com", {"key": "a\r\nX: y"}, "printable ASCII"),
        ("amqp://a:b@example.com", {"key": "k"}, "over AMQP there is no key"),
        ("amqp://a:b@example.com:99999", {}, "port"),
        ("https://example.com", {"attempts": 0}, "attempts"),
        ("https://example.com", {"timeout": 0}, "timeout"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(
    kind: type[Client], url: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        kind(url, **options)  # type: ignore[arg-type]


def test_errors_have_one_base() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = [kind for kind in kinds if issubclass(kind, BaseException)]
    assert all(issubclass(kind, errors.ClientError) for kind in raised)


def test_document_that_comes_after_the_connection_failed_is_told_why() -> None:
    line = Line(Hosts("amqp://shop:x@127.0.0.1:1/", name="test"), "intake")
    wait_until(lambda: line.is_over, "the connection has failed")
    late = Sent(b"{}", "order.v1", wants_answer=True)
    line.send(late)
    with pytest.raises(errors.Unreachable, match="refused"):
        late.future.result(0)
