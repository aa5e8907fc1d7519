"""What a PowerDNS driver is told: where its server is, and what goes into zones."""

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from workers.outside.http import HttpSettings

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# A customer is told of it in at most 200 characters; below it is room for what the driver keeps.
MOST_DOMAIN_CHARACTERS = 200
MOST_TOLD_CHARACTERS = 200


def host_name(text: str) -> str:
    """A name of two labels or more, in small letters, without a dot at its end (RFC 1123).

    Raises:
        ValueError: it is none. Names outside ASCII are taken in their form ``xn--…`` only.
    """
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if (
        len(name) > MOST_DOMAIN_CHARACTERS
        or len(labels) < 2
        or not all(map(_LABEL.fullmatch, labels))
        or labels[-1].isdigit()
    ):
        raise ValueError(
            f"must be a domain name in ASCII of at most {MOST_DOMAIN_CHARACTERS} characters"
        )
    return name


HostName = Annotated[str, AfterValidator(host_name)]
Seconds = Annotated[int, Field(ge=0, le=2**31 - 1)]

_ENDS_IN_A_NAME = ("CNAME", "MX", "NS", "SRV")


class RecordTemplate(BaseModel):
    """One record. In ``name`` and ``content``, ``{domain}`` and ``{service}`` are filled in.

    Attributes:
        name: below the zone, such as ``www``; ``@`` is the zone itself.
        content: as in a zone file. A text of TXT may stand without its quotes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^(@|[a-z0-9_*{}.-]{1,200})$")] = "@"
    type: Literal["A", "AAAA", "CAA", "CNAME", "MX", "NS", "SRV", "TXT"]
    content: Annotated[str, StringConstraints(min_length=1, max_length=2000)]
    ttl: Seconds = 3600

    @model_validator(mode="after")
    def _content_of_its_type(self) -> "RecordTemplate":
        if self.type in ("A", "AAAA"):
            version = 4 if self.type == "A" else 6
            try:
                if ipaddress.ip_address(self.content).version != version:
                    raise ValueError
            except ValueError:
                raise ValueError(
                    f"the content of {self.type} must be an IPv{version} address"
                ) from None
        if self.type in _ENDS_IN_A_NAME and not self.content.endswith("."):
            raise ValueError(f"the content of {self.type} must end in a name with a dot at its end")
        if self.type in ("CNAME", "NS") and self.name == "@":
            raise ValueError(f"a zone itself has no {self.type} of a template")
        return self


class ParkingRecord(RecordTemplate):
    """A record of a parked zone. It may stand beside customers' records that are kept disabled,
    which a CNAME could not."""

    type: Literal["A", "AAAA", "MX", "TXT"]


class PowerDnsSettings(HttpSettings):
    """
    Attributes:
        url: of the API, with its version: ``https://dns.example/api/v1``.
        token: the API key.
        server: what the API calls the server.
        nameservers: of every zone. Customers are told of them.
        hostmaster: the mailbox of zones, in the form of SOA records.
        zone_kind: ``Master`` notifies secondaries.
        templates: plan -> the records of a new zone; the plan ``*`` is every other one.
        parking: what a suspended zone has instead of its own records.
        registry: the zone of the driver's own, in which it remembers services.
        not_sold: zones that are no customers', and not listed for the audit.
        list_seconds: deadline of the list of all zones, both its requests.
    """

    token: SecretStr
    connections: Annotated[int, Field(ge=1, le=10_000)] = 20
    server: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] = "localhost"
    nameservers: Annotated[tuple[HostName, ...], Field(min_length=1, max_length=20)]
    hostmaster: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_{}.-]{1,200}\.$")] = (
        "hostmaster.{domain}."
    )
    zone_kind: Literal["Native", "Master"] = "Native"
    templates: dict[str, tuple[RecordTemplate, ...]]
    parking: tuple[ParkingRecord, ...] = ()
    registry: HostName = "autorenew.invalid"
    not_sold: frozenset[HostName] = frozenset()
    list_seconds: Annotated[float, Field(gt=0, le=300)] = 60.0

    @field_validator("nameservers", mode="after")
    @classmethod
    def _can_be_told(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(", ".join(names)) > MOST_TOLD_CHARACTERS:
            raise ValueError(f"must have at most {MOST_TOLD_CHARACTERS} characters together")
        return names

    def template(self, plan: str) -> tuple[RecordTemplate, ...] | None:
        return self.templates.get(plan, self.templates.get("*"))
