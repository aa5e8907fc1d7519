"""The suites that every gateway and every driver must pass, for authors outside this project, too.

They need pytest. To see what a failing assertion compared, name the package before it is imported:
``pytest.register_assert_rewrite("workers.conformance")`` in a ``conftest.py``.
"""

from workers.conformance.drivers import DriverConformance
from workers.conformance.gateways import GatewayConformance

__all__ = ["DriverConformance", "GatewayConformance"]
