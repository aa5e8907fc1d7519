"""Virtual machines of any provider that Apache Libcloud knows, behind the port of drivers.

Apache Libcloud is an extra (``pip install autorenew[libcloud]``) and is imported when a driver of
this kind is built, not before: processes without one do not carry it.
"""

from workers.provisioning.drivers.libcloud.driver import LibcloudDriver

__all__ = ["LibcloudDriver"]
