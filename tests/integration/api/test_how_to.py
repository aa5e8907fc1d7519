"""What the how-to sends with curl is answered as it says."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autorenew.catalogues import bundled
from schemas.catalogue.store import save
from tests.support.api import make_key
from tests.support.life import Life

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/how-to/use-the-api.md"


def requests() -> list[str]:
    """Each curl of the page, whole."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return [one for block in blocks for one in re.split(r"^(?=curl )", block, flags=re.M)
            if one.startswith("curl ")]  # fmt: skip


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_request_of_the_how_to_is_answered(server: Any, world: Life) -> None:
    with world.fleet.owner.begin() as tx:
        save(tx, bundled())
    world.roll_out("ovh")
    environment = {
        "API": server.url,
        "KEY": make_key(world.fleet.engine("api"), "how-to"),
        "PATH": "/usr/bin:/bin",
    }
    answers = {}
    for request in requests():
        shown = subprocess.run(
            ["sh", "-c", request], env=environment, cwd=ROOT, capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        said = [json.loads(line) for line in shown.stdout.splitlines()]
        assert said, request
        assert all("code" not in one for one in said), shown.stdout
        answers[request.split()[2 if "-X" not in request else 4].strip('"')] = said
        if "items" in said[0] and "services?" in request:
            environment["SERVICE"] = said[0]["items"][0]["id"]

    assert answers["$API/v1/orders?wait=20"][0]["state"] == "delivered"
    assert {line["status"] for line in answers["$API/v1/orders:batch"]} == {202}
    assert answers["$API/v1/services/$SERVICE:stop"] == [{"changed": True}]
    assert answers["$API/v1/customers/c-curl/upcoming"][0]["items"]
