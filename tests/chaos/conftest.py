"""The long tests of tests/chaos and tests/e2e begin first."""

from pathlib import Path

import pytest

from tests.support.longest_first import dealt

TESTS = Path(__file__).parents[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    places = [
        (item, item.path.relative_to(TESTS).as_posix(), getattr(item, "originalname", item.name))
        for item in items
    ]
    items[:] = dealt(places, workers)
