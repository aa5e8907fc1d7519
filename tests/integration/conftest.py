"""What tests of the audit share."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from autorenew.local.embedded import Embedded
from tests.conftest import Database
from tests.support.everything import Everything
from tests.support.receiver import Receiver


@pytest.fixture(scope="session")
def everything(
    postgres: Any, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Everything]:
    """A fleet to which everything has happened; tests leave it as it is."""
    postgres.create_database("everything", template)
    database = Database(postgres, "everything")
    quick = {
        "call_seconds": 0.5,
        "order_charge_delays": [0.05, 0.1],
        "retry_base_seconds": 0.05,
        "retry_attempts": 4,
        "silence_seconds": 26 * 3600.0,
        "webhook_allowed_networks": ["127.0.0.0/8"],
    }
    folder = tmp_path_factory.mktemp("everything")
    with (
        Receiver() as receiver,
        Embedded(
            folder, postgres=postgres, database="everything", ahead=timedelta(), **quick
        ) as fleet,
    ):
        built = Everything(fleet, database).build(receiver.url())
        # Its heartbeat would wait for corruptions that are undone, and they for it.
        fleet.stop_publishing()
        fleet._relay.stop()
        fleet._relay_thread.join(10)
        yield built
    database.close()
    postgres.drop_database("everything")
