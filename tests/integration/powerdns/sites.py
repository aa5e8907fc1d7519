"""A zone of a service, as its driver and as resolvers see it."""

import uuid
from typing import Any

from tests.support.powerdns import PowerDns, options
from workers.conformance.drivers import Service
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.powerdns import PowerDnsDriver


def a_domain() -> str:
    return f"site-{uuid.uuid4().hex[:10]}.example"


def driver_of(server: PowerDns, /, **changes: Any) -> PowerDnsDriver:
    return PowerDnsDriver("web", PowerDnsDriver.Settings(**options(server, **changes)))


def is_publishing(method: str, path: str) -> bool:
    return method == "PATCH" and "autorenew.invalid" not in path


class Site:
    """A service with a domain of its own, as its driver and as resolvers see it."""

    def __init__(self, driver: Waiting, server: PowerDns, domain: str = "") -> None:
        self.domain = domain or a_domain()
        self.server = server
        self.service = Service(driver, {"configuration": {"domain": self.domain}})
        self.does = self.service.does

    def on(self, driver: Waiting) -> Service:
        """The same service, at another driver of the same server."""
        same = Service(driver, {"configuration": {"domain": self.domain}})
        same.id = self.service.id
        return same

    def ask(self, kind: str = "A", name: str = "") -> list[str] | str:
        return self.server.ask(f"{name}.{self.domain}" if name else self.domain, kind)


def served(site: Site) -> dict[str, Any]:
    return {
        "A": site.ask("A"), "AAAA": site.ask("AAAA"), "MX": site.ask("MX"),
        "www": site.ask("CNAME", "www"), "text": site.ask("TXT", "_service"),
    }  # fmt: skip
