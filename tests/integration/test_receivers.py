"""The receivers of the documentation take what is sent, and nothing else."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.settings import Settings
from tests.support.receiver import make_certificate
from workers.events.sender import Letter, Sender
from workers.events.signing import new_secret

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
NODE = shutil.which("node")
RECEIVERS = [
    [sys.executable, str(EXAMPLES / "receive.py")],
    pytest.param(
        [NODE or "node", str(EXAMPLES / "receive.mjs")],
        marks=pytest.mark.skipif(NODE is None and not os.environ.get("CI"), reason="no Node"),
    ),
]
EVENT = b"""{"id": "1", "type": "autorenew.order.delivered", "subject": "order/2",
    "sequence": "1"}"""


@contextmanager
def receiving(command: list[str], secret: str, *certificate: str) -> Iterator[tuple[Any, int]]:
    process = subprocess.Popen(
        [*command, "0", *certificate], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"WEBHOOK_SECRET": secret},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline().rsplit(" ", 1)[1])
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def sent(url: str, *secrets: str, times: int = 1) -> list[str]:
    """How a receiver answers to an event that is sent so often."""
    allowed = Settings(webhook_allowed_networks=["127.0.0.0/8"]).webhook_allowed_networks

    async def run() -> list[str]:
        sender = Sender(seconds=10, allowed=allowed)
        try:
            letter = Letter("shop", url, "1", EVENT, secrets)
            return [(await sender.send(letter)).code for _ in range(times)]
        finally:
            await sender.close()

    return asyncio.run(run())


@pytest.mark.parametrize("command", RECEIVERS)
def test_receiver_takes_an_event_once_and_refuses_what_is_forged(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    secret, other = new_secret(), new_secret()
    certificate = (str(tmp_path / "server.pem"), str(tmp_path / "server.key"))
    with receiving(command, secret, *certificate) as (process, port):
        url = f"https://localhost:{port}/events"
        assert sent(url, other) == ["HTTP 401"]
        assert sent(url, secret, times=2) == ["HTTP 204", "HTTP 204"]
        # While a secret is replaced, both sign.
        assert sent(url, other, secret) == ["HTTP 204"]
        process.terminate()
        said = process.stdout.read().split()
    assert said[:3] == ["autorenew.order.delivered", "order/2", "1"]
    assert len(said) == 3
