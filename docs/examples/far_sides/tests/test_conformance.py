"""All that is asked of a gateway and a driver, on those of this package."""

from pathlib import Path

import pytest
from example_far_sides import FolderDriver, LedgerFileGateway

from workers.conformance import DriverConformance, GatewayConformance


class TestLedgerFileGateway(GatewayConformance):
    @pytest.fixture
    def gateway(self, tmp_path: Path) -> LedgerFileGateway:
        settings = LedgerFileGateway.Settings(path=tmp_path / "book.json")
        return LedgerFileGateway("example", settings)


class TestFolderDriver(DriverConformance):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> FolderDriver:
        return FolderDriver("example", FolderDriver.Settings(folder=tmp_path))
