"""How a provider is reached, and what its plans are built as."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, Secret, SecretStr, field_validator

from schemas.settings import Url

Name = Annotated[str, Field(min_length=1, max_length=200)]


class OptionRefused(Exception):
    """What was ordered cannot be built with these settings; says what, as a code."""


class Built(BaseModel):
    """What of a machine an option replaces.

    Attributes:
        size, image, location: as the provider names them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Name | None = None
    image: Name | None = None
    location: Name | None = None


class Machine(BaseModel):
    """What a plan is built as.

    Attributes:
        size, image, location: as the provider names them.
        arguments: what Libcloud's ``create_node`` takes besides, such as ``ex_keyname``.
        options: option of the plan -> value -> what it replaces. An option that is not named here
            changes nothing; a value that is not named is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Name
    image: Name
    location: Name | None = None
    arguments: dict[str, Any] = {}
    options: dict[str, dict[str, Built]] = {}

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = {"name", "size", "image", "location", "ex_metadata", "ex_clienttoken"}
        several = {"ex_mincount", "ex_maxcount"}  # one service is one machine
        if taken := sorted(value.keys() & (ours | several)):
            raise ValueError(f"{', '.join(taken)} cannot be set here")
        return value

    def ordered(self, configuration: Mapping[str, Any]) -> "Machine":
        """What is built for a service with these options.

        Raises:
            OptionRefused: an option has a value that is not offered.
        """
        replaced: dict[str, str] = {}
        for option, offered in self.options.items():
            if option not in configuration:
                continue
            built = offered.get(str(configuration[option]))
            if built is None:
                raise OptionRefused(f"option_not_offered: {option}")
            replaced |= built.model_dump(exclude_none=True)
        return self.model_copy(update=replaced)


class LibcloudSettings(BaseModel):
    """
    Attributes:
        provider: Libcloud's name of it, such as ``ec2``.
        key, secret: the credential, as Libcloud's class of the provider takes it.
        region: if the provider has some.
        url: where its API is, if not where Libcloud has it: scheme, host and port.
        options: what else Libcloud's class takes, such as ``ex_force_auth_url``.
        plans: plan -> what it is built as.
        seconds: deadline of a call, with all requests that it makes.
        threads: calls at once in one process.
        late_seconds: for how long a create that was begun elsewhere may still arrive; ``seconds``
            if not given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Name
    key: SecretStr
    secret: SecretStr | None = None
    region: Name | None = None
    url: Url | None = None
    options: Secret[dict[str, Any]] = Secret({})
    plans: Annotated[dict[str, Machine], Field(min_length=1)]
    seconds: Annotated[float, Field(gt=0, le=300)] = 30.0
    threads: Annotated[int, Field(ge=1, le=5000)] = 100
    late_seconds: Annotated[float, Field(ge=0, le=3600)] | None = None

    @field_validator("url")
    @classmethod
    def _only_a_place(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
                raise ValueError("takes scheme, host and port only")
        return value

    @property
    def late(self) -> float:
        return self.seconds if self.late_seconds is None else self.late_seconds

    def secrets(self) -> Iterator[str]:
        """What nobody else may see."""
        yield self.key.get_secret_value()
        if self.secret is not None:
            yield self.secret.get_secret_value()
        waiting: list[Any] = [self.options.get_secret_value()]
        while waiting:
            match waiting.pop():
                case dict() as values:
                    waiting += values.values()
                case list() | tuple() as values:
                    waiting += values
                case str() as value if len(value) >= 8:  # shorter ones are words, not secrets
                    yield value

    def arguments(self) -> dict[str, Any]:
        """What Libcloud's class is called with."""
        given: dict[str, Any] = {"key": self.key.get_secret_value()}
        if self.secret is not None:
            given["secret"] = self.secret.get_secret_value()
        if self.region is not None:
            given["region"] = self.region
        if self.url is not None:
            parts = urlsplit(self.url)
            secure = parts.scheme == "https"
            port = parts.port or (443 if secure else 80)
            given |= {"host": parts.hostname, "port": port, "secure": secure}
        return given | self.options.get_secret_value()
