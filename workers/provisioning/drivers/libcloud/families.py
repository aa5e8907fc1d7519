"""How providers keep facts about a machine: as tags, as metadata, or only in its name.

Imports Libcloud.
"""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Protocol
from xml.etree import ElementTree

from libcloud.compute.base import NodeImage, NodeLocation, NodeSize
from libcloud.compute.drivers import ec2, openstack

from schemas.values import ServiceId
from workers.provisioning.drivers.libcloud.call import current
from workers.provisioning.drivers.libcloud.faults import NotUnderstood
from workers.provisioning.drivers.libcloud.settings import Machine

SERVICE = "autorenew-service"
GENERATION = "autorenew-generation"
PAID_UNTIL = "autorenew-paid-until"
KEY = "autorenew-key"
BODY = "autorenew-body"

_NAME = re.compile(r"autorenew-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_NO_MACHINE = ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed")


def name_of(service: ServiceId) -> str:
    return f"autorenew-{service}"


class Family(Protocol):
    """``client`` is an object of Libcloud's class for the provider, a node one of its nodes."""

    def of_service(self, client: Any, service: ServiceId) -> list[Any]:
        """Its machines, those included that are gone and still shown."""
        ...

    def by_id(self, client: Any, resource_id: str) -> Any | None: ...

    def ours(self, client: Any) -> list[Any]:
        """All machines that belong to a service."""
        ...

    def facts(self, node: Any) -> Mapping[str, str]: ...

    def write(self, client: Any, node: Any, facts: Mapping[str, str]) -> None:
        """Add them, or replace those that are there."""
        ...

    def create(
        self, client: Any, machine: Machine, name: str, key: str, facts: Mapping[str, str]
    ) -> None:
        """Begin one machine with these facts.

        Args:
            key: two calls with the same one make one machine, where a provider can tell.
        """
        ...


class Named:
    """The name says whose it is; nothing else is kept there."""

    def of_service(self, client: Any, service: ServiceId) -> list[Any]:
        wanted = str(service)
        return [n for n in client.list_nodes() if self.facts(n).get(SERVICE) == wanted]

    def by_id(self, client: Any, resource_id: str) -> Any | None:
        return next((n for n in client.list_nodes() if n.id == resource_id), None)

    def ours(self, client: Any) -> list[Any]:
        return [node for node in client.list_nodes() if SERVICE in self.facts(node)]

    def facts(self, node: Any) -> Mapping[str, str]:
        found = _NAME.fullmatch(node.name or "")
        return {SERVICE: found[1]} if found else {}

    def write(self, client: Any, node: Any, facts: Mapping[str, str]) -> None:
        pass

    def create(
        self, client: Any, machine: Machine, name: str, key: str, facts: Mapping[str, str]
    ) -> None:
        client.create_node(**_common(client, machine, name), **machine.arguments)


class Metadata(Named):
    """OpenStack."""

    def facts(self, node: Any) -> Mapping[str, str]:
        kept = node.extra.get("metadata")
        return kept if isinstance(kept, dict) else {}

    def write(self, client: Any, node: Any, facts: Mapping[str, str]) -> None:
        client.ex_set_metadata(node, {**self.facts(node), **facts})  # replaces all of it

    def create(
        self, client: Any, machine: Machine, name: str, key: str, facts: Mapping[str, str]
    ) -> None:
        common = _common(client, machine, name)
        client.create_node(**common, ex_metadata=dict(facts), **machine.arguments)


class Tags(Named):
    """EC2: tags by which a list is filtered, and a token against doubles."""

    def of_service(self, client: Any, service: ServiceId) -> list[Any]:
        return self._listed(client, ex_filters={f"tag:{SERVICE}": str(service)})

    def by_id(self, client: Any, resource_id: str) -> Any | None:
        try:
            found = self._listed(client, ex_node_ids=[resource_id])
        except Exception as error:
            if str(error).startswith(_NO_MACHINE):
                return None
            raise
        return next(iter(found), None)

    def ours(self, client: Any) -> list[Any]:
        return self._listed(client, ex_filters={"tag-key": SERVICE})

    def facts(self, node: Any) -> Mapping[str, str]:
        kept = node.extra.get("tags")
        return kept if isinstance(kept, dict) else {}

    def write(self, client: Any, node: Any, facts: Mapping[str, str]) -> None:
        # Libcloud's own numbers them from 0, which the document of the API does not.
        asked = {"Action": "CreateTags", "ResourceId.1": node.id}
        for place, (name, value) in enumerate(facts.items(), 1):
            asked |= {f"Tag.{place}.Key": name, f"Tag.{place}.Value": value}
        client.connection.request(client.path, params=asked)

    def create(
        self, client: Any, machine: Machine, name: str, key: str, facts: Mapping[str, str]
    ) -> None:
        arguments = dict(machine.arguments)
        if isinstance(subnet := arguments.get("ex_subnet"), str):
            arguments["ex_subnet"] = SimpleNamespace(id=subnet)
        common = _common(client, machine, name)
        if machine.location is not None:
            zone = ec2.ExEC2AvailabilityZone(machine.location, None, client.region_name)
            common["location"] = SimpleNamespace(availability_zone=zone)
        client.create_node(**common, ex_metadata=dict(facts), ex_clienttoken=key, **arguments)

    @staticmethod
    def _listed(client: Any, **how: Any) -> list[Any]:
        """Libcloud reads an answer that is none as an empty list, and then a machine that
        exists would be built once more."""
        found: list[Any] = client.list_nodes(**how)
        if not found:
            wanted = f"{{{ec2.NAMESPACE}}}DescribeInstancesResponse"
            call = current()
            try:
                root = ElementTree.fromstring(call.body if call else b"").tag
            except ElementTree.ParseError:
                root = "no XML"
            if root != wanted:
                raise NotUnderstood(f"{root} instead of {wanted}")
        return found


def family_of(driver_class: Any) -> Family:
    """The one that a class of Libcloud belongs to."""
    if issubclass(driver_class, ec2.EC2NodeDriver):
        return Tags()
    if issubclass(driver_class, openstack.OpenStackNodeDriver):
        return Metadata()
    return Named()


def _common(client: Any, machine: Machine, name: str) -> dict[str, Any]:
    """Libcloud wants objects, of which nearly every provider uses the id only; a list of all
    sizes and images would be thousands of lines for each call."""
    size = NodeSize(machine.size, machine.size, None, None, None, None, client)
    common = {"name": name, "size": size, "image": NodeImage(machine.image, machine.image, client)}
    if machine.location is not None:
        common["location"] = NodeLocation(machine.location, machine.location, "", client)
    return common
