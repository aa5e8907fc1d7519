"""Private nodes of RabbitMQ: of the version that is installed, and of version 4.

``AUTORENEW_TEST_RABBITMQ`` names a folder that ``scripts/ensure-servers.sh FOLDER RELEASE`` filled:
every test then runs on the version that is there, and on no other.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autorenew.local.rabbitmq import HINT, PrivateRabbitMQ, Server, fetched_server, find_server
from tests.support.servers import servers

OTHER = os.environ.get("AUTORENEW_TEST_RABBITMQ")
VERSIONS = ("other",) if OTHER else ("installed", "4")


def server_of(version: str) -> Server:
    """Where it is. A test is skipped if it is not on the machine; in CI it fails."""
    if OTHER:
        return fetched_server(Path(OTHER))
    if version != "installed":
        return fetched_server(servers())
    installed = find_server()
    if installed is None:
        if os.environ.get("CI") == "true":
            pytest.fail(HINT)
        pytest.skip(HINT)
    return installed


@contextmanager
def node(version: str, folder: Path) -> Iterator[PrivateRabbitMQ]:
    """A node that runs."""
    started = PrivateRabbitMQ(folder, server_of(version))
    started.start()
    try:
        yield started
    finally:
        started.stop()
