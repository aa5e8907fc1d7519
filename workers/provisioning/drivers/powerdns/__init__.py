"""DNS zones on a PowerDNS authoritative server, over its HTTP API."""

from workers.provisioning.drivers.powerdns.driver import PowerDnsDriver

__all__ = ["PowerDnsDriver"]
