"""Every test here runs on the RabbitMQ that is installed, and on RabbitMQ 4."""

from collections.abc import Iterator

import pytest

from autorenew.local.rabbitmq import PrivateRabbitMQ
from tests.support.brokers import VERSIONS, node


@pytest.fixture(scope="session", params=VERSIONS)
def rabbitmq(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateRabbitMQ]:
    with node(request.param, tmp_path_factory.mktemp("rabbitmq")) as started:
        yield started
