"""The one settings object, read from environment variables that start with ``AUTORENEW_``; those
that hold a secret also from the file that ``AUTORENEW_…_FILE`` names."""

import json
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal, get_args
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Secret,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from schemas import broker_urls
from schemas.errors import ConfigurationError
from schemas.reasons import REASONS, CalledKind
from schemas.secrecy import placeholder, weakness
from schemas.secret_files import SettingsFromFiles
from schemas.urls import (
    check_web,
    in_the_clear,
    password_in_the_clear,
    split_database,
    split_with_host,
)
from schemas.values import OperatorRole

# At most a year: a longer time is a mistake, and a clock cannot be advanced by 1e300 s.
_YEAR = 366 * 86_400
Seconds = Annotated[float, Field(gt=0, le=_YEAR)]
Delay = Annotated[float, Field(ge=0, le=_YEAR)]


# Instead of the URL of a far side: answers at once, in this process. For benchmarks and tests.
INSTANT = "instant:"
DEFAULT_GATEWAY = "default"

Url = Annotated[str, AfterValidator(check_web)]
FarUrl = Annotated[str, AfterValidator(lambda url: url if url == INSTANT else check_web(url))]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]+$", to_lower=True)]
Network = Annotated[str, AfterValidator(lambda text: str(ip_network(text, strict=False)))]
Options = dict[str, Secret[dict[str, Any]]]


class BreakerSettings(BaseModel):
    """When a lane is opened because its far side fails, and how often it is tried then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failures: Annotated[int, Field(ge=2, le=1000)] = 10
    seconds: Seconds = 5.0
    cap_seconds: Seconds = 300.0


class RetrySettings(BaseModel):
    """How what failed at one kind of far side is tried again; what is left out is as for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_seconds: Seconds | None = None
    cap_seconds: Seconds | None = None
    attempts: Annotated[int, Field(ge=1)] | None = None


class Settings(BaseSettings):
    """The settings of every process; :meth:`need` checks the ones a process cannot do without."""

    model_config = SettingsConfigDict(
        env_prefix="AUTORENEW_", extra="ignore", frozen=True, enable_decoding=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SettingsFromFiles(settings_cls)

    database_url: SecretStr | None = Field(
        None, description="postgresql://user:pw@host/database, or @host,host:5433/database"
    )
    read_database_url: SecretStr | None = Field(
        None, description="the same database as the role readonly; may be a standby"
    )
    broker_url: SecretStr | None = Field(
        None, description="amqp://user:pw@host:5672/vhost, or several, separated by commas"
    )
    broker_management_url: SecretStr | None = Field(
        None, description="http://admin:pw@host:15672, used by `broker setup` to create users"
    )
    role_passwords: dict[str, SecretStr] = Field({}, description="database role -> password")
    broker_passwords: dict[str, SecretStr] = Field({}, description="broker user -> password")
    intake_upstreams: list[str] = Field(
        [], description="broker users upstream-NAME that have a queue of their own"
    )
    intake_cap: int = Field(
        500_000, ge=1, le=10**9, description="documents that may wait in a queue of intake"
    )
    intake_cap_bytes: int = Field(
        2**30, ge=2**20, le=2**50, description="bytes of documents that may wait there"
    )
    rejected_days: int = Field(
        90, ge=0, le=36_500, description="how long rejected documents are kept; 0: for ever"
    )
    email_text_days: int = Field(
        400, ge=0, le=36_500, description="how long texts of e-mails are kept; 0: for ever"
    )
    gateways: Options = Field(
        {}, description='gateway name -> {"kind": …, and what that kind takes}'
    )
    gateway_url: FarUrl | None = Field(
        None, description="base URL of the gateway `default`, if it is of the kind http"
    )
    gateway_token: SecretStr | None = None
    drivers: Options = Field({}, description='driver name -> {"kind": …, and what that kind takes}')
    operator: str | None = Field(
        None, description="who is at the command line; kept in the history of what they do"
    )
    console_url: Url | None = Field(
        None, description="where browsers reach the console; by default where it serves"
    )
    console_idle_seconds: Seconds = Field(
        3600.0, description="a session of the console that is not used for so long ends"
    )
    console_session_seconds: Seconds = Field(
        12 * 3600.0, description="how long a session of the console lasts at most"
    )
    oidc_issuer: Url | None = Field(
        None, description="OpenID Connect: who vouches for operators of the console"
    )
    oidc_client_id: str | None = Field(
        None, description="what the OpenID provider calls the console"
    )
    oidc_client_secret: SecretStr | None = Field(
        None, description="what the console proves itself with to the OpenID provider"
    )
    oidc_role_claim: str = Field(
        "groups", description="the claim of the ID token that says an operator's role"
    )
    oidc_roles: dict[str, OperatorRole] = Field(
        {}, description="a value of that claim -> reader, operator or administrator"
    )
    realms: dict[str, str] = Field(
        {}, description="upstream -> realm, of upstreams that share their customers"
    )
    driver_urls: dict[str, FarUrl] = Field(
        {}, description="driver name -> base URL, of those that are of the kind http"
    )
    driver_tokens: dict[str, SecretStr] = {}
    smtp_url: SecretStr | None = Field(
        None, description="smtp://host:25, smtp+starttls://user:pw@host:587 or smtps://user:pw@host"
    )
    mail_from: str | None = Field(None, description="sender of reminders: Name <address>")
    link_base_url: Url | None = Field(None, description="where the links in e-mails lead")
    account_url: Url | None = Field(
        None,
        description="where customers see all their services, if not on our own pages",
    )
    link_secret: SecretStr | None = Field(None, description="what signs the links in e-mails")
    link_secret_previous: SecretStr | None = Field(
        None, description="what signed them before; its links are still opened"
    )
    link_days: int = Field(90, ge=1, le=366, description="how long those links can be opened")
    pages_per_minute: int = Field(
        120, ge=1, le=1_000_000, description="requests to the pages that one address may make"
    )
    trusted_proxies: list[Network] = Field(
        [], description="networks of reverse proxies whose X-Forwarded-For is believed"
    )
    reconcile_seconds: float = Field(
        86_400.0, ge=0, le=_YEAR, description="how often drivers' books are compared; 0: never"
    )
    reconcile_mends: list[Literal["missing", "state", "paid_until"]] = Field(
        ["state", "paid_until"], description="which differences are mended without a person"
    )
    reconcile_share: float = Field(
        0.01, ge=0, le=1, description="of a driver's services may differ for any to be mended"
    )
    event_source: str = Field(
        "/autorenew", min_length=1, description="the `source` of events: names this fleet"
    )
    webhook_allowed_networks: list[IPv4Network | IPv6Network] = Field(
        [], description='inner networks that webhooks may be sent to: ["10.1.0.0/16"]'
    )
    webhook_disable_days: float = Field(
        5.0, gt=0, le=366, description="an endpoint that fails for so long is disabled"
    )
    webhook_keep_days: int = Field(
        30, ge=1, le=3660, description="how long deliveries that have ended are kept"
    )
    delivery_email_seconds: Seconds = Field(
        300.0, description="how long the e-mail about an order waits for its other services"
    )
    call_seconds: float = Field(10.0, gt=0, le=300, description="deadline of one outside call")
    calls_at_once: int = Field(
        100, ge=1, le=5000, description="outside calls under way in a process, for each lane"
    )
    lease_seconds: Seconds = Field(60.0, description="a worker's hold on a task")
    rescue_seconds: Seconds = Field(30.0, description="dispatched and not claimed: again")
    dispatch_cap: int = Field(4000, ge=1, description="dispatched, not yet claimed, per queue")
    batch: int = Field(500, ge=1, le=5000, description="most tasks in one message")
    poll_seconds: Seconds = Field(0.02, description="how often an idle relay looks")
    sweep_seconds: Seconds = Field(1.0, description="how often an idle scheduler looks")
    silence_seconds: Seconds = Field(
        6 * 3600.0, description="a gap beyond which charging and ending wait for a person"
    )
    destructive_window_seconds: Seconds = Field(86_400.0, description="in which ends are counted")
    destructive_most: int = Field(
        1000, ge=1, description="services that may be suspended or terminated in that window"
    )
    destructive_share: float = Field(
        0.02, gt=0, le=1, description="the same as a share of all services, from 20 services on"
    )
    internal_hosts: list[Host] = Field(
        [], description="hosts to which passwords and tokens may travel unencrypted"
    )
    development: bool = Field(False, description="take weak secrets; never where others reach it")
    clock: Literal["system", "virtual"] = Field("system", description="virtual: for demos, tests")
    clock_skew_seconds: Seconds = Field(
        60.0, description="a host whose clock differs by more from the database's does no work"
    )
    shutdown_seconds: Seconds = Field(60.0, description="how long SIGTERM may take")
    order_charge_delays: list[Delay] = Field(
        [60.0, 600.0], description="seconds between the charges of an order that is declined"
    )
    retry_base_seconds: Seconds = Field(60.0, description="backoff of the first retry")
    retry_cap_seconds: Seconds = 6 * 3600.0
    retry_attempts: int = Field(24, ge=1, description="failures until a person decides")
    retries: dict[str, RetrySettings] = Field(
        {},
        description='the same for a kind of far side, or for a reason: {"mail": {"attempts": 40}}',
    )
    breaker: BreakerSettings = Field(
        BreakerSettings(), description="when the lane of a far side that fails is opened"
    )
    audit_seconds: Delay = Field(
        60.0, description="how often the exporter does a piece of the audit; 0: never"
    )
    book_comparison_seconds: Delay = Field(
        86_400.0, description="how often an exporter with gateways compares their books; 0: never"
    )
    metrics_port: int = Field(0, ge=0, le=65535, description="/metrics; 0: any free port")
    metrics_host: str = "127.0.0.1"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal and of commands, else a JSON object a line"
    )
    traces_url: Url | None = Field(
        None, description="base URL of an OpenTelemetry collector (OTLP over HTTP)"
    )
    traces_share: float = Field(1.0, ge=0, le=1, description="of new traces that are recorded")

    @field_validator(
        "role_passwords", "broker_passwords", "driver_urls", "driver_tokens", "order_charge_delays",
        "gateways", "drivers", "retries", "breaker", "internal_hosts", "realms",
        "intake_upstreams", "reconcile_mends", "oidc_roles", "webhook_allowed_networks",
        "trusted_proxies", mode="before",
    )  # fmt: skip
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("is not JSON") from None
        return value

    @field_validator("retries", mode="after")
    @classmethod
    def _of_what_is_known(cls, value: dict[str, RetrySettings]) -> dict[str, RetrySettings]:
        known = {*get_args(CalledKind), *REASONS}
        if unknown := sorted(value.keys() - known):
            raise ValueError(
                f"there is no kind of far side and no reason {', '.join(unknown)}; there are"
                f" {', '.join(sorted(known))}"
            )
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("database_url", "read_database_url", mode="after")
    @classmethod
    def _database_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:  # its host may be in a query, or a local socket
            split_database(value.get_secret_value())
        return value

    @field_validator("broker_url", mode="after")
    @classmethod
    def _broker_urls(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            broker_urls.parse(value.get_secret_value())
        return value

    @field_validator("link_secret_previous", mode="after")
    @classmethod
    def _none_before(cls, value: SecretStr | None) -> SecretStr | None:
        """Compose and systemd pass a variable that is not set as an empty one."""
        return value if value is not None and value.get_secret_value() else None

    @field_validator("account_url", mode="before")
    @classmethod
    def _no_account_page(cls, value: Any) -> Any:
        return value or None  # empty, as above

    @field_validator("smtp_url", mode="after")
    @classmethod
    def _smtp_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value() == INSTANT:
            return value
        return _scheme(value, "smtp", "smtps", "smtp+starttls")

    @field_validator("broker_management_url", mode="after")
    @classmethod
    def _management_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        return _scheme(value, "http", "https")

    @field_validator("gateways", "drivers", mode="after")
    @classmethod
    def _urls_of_http(cls, value: Options) -> Options:
        """The other options are checked by the class of their kind when it is built."""
        for name, options in value.items():
            chosen = options.get_secret_value()
            if chosen.get("kind", "http") == "http" and isinstance(url := chosen.get("url"), str):
                try:
                    check_web(url)
                except ValueError as error:
                    raise ValueError(f"[{name!r}]: url {error}") from None
        return value

    @model_validator(mode="after")
    def _nothing_secret_in_the_clear(self) -> "Settings":
        found = [
            f"AUTORENEW_{setting}: what {host} is sent would travel in the clear: use {scheme},"
            f" or name that host in AUTORENEW_INTERNAL_HOSTS"
            for setting, host, scheme in self._in_the_clear()
        ]
        if found:
            raise ValueError("; ".join(found))
        return self

    def _in_the_clear(self) -> Iterator[tuple[str, str, str]]:
        """Settings that have a secret sent unencrypted: its name, the host, the remedy."""
        internal = self.internal_hosts
        if self.broker_url:
            for broker in broker_urls.parse(self.broker_url.get_secret_value()):
                if broker.in_the_clear(internal):
                    yield "BROKER_URL", broker.host, "amqps://"
        if self.broker_management_url:
            url = self.broker_management_url.get_secret_value()
            if host := in_the_clear(url, internal):
                yield "BROKER_MANAGEMENT_URL", host, "https://"
        for field in ("database_url", "read_database_url"):
            url = getattr(self, field)
            if url and (host := password_in_the_clear(url.get_secret_value(), internal)):
                yield field.upper(), host, "?sslmode=verify-full"
        if self.smtp_url:
            url = self.smtp_url.get_secret_value()
            if urlsplit(url).username and (host := in_the_clear(url, internal)):
                yield "SMTP_URL", host, "smtps:// or smtp+starttls://"
        # Links are a customer's to open, and payment methods are sent to a gateway without a token.
        for field in ("link_base_url", "account_url", "gateway_url", "oidc_issuer"):
            url = getattr(self, field)
            if url and (host := in_the_clear(url, internal)):
                yield field.upper(), host, "https://"
        for name, url in self.driver_urls.items():
            has_secret = name in self.driver_tokens or urlsplit(url).username
            if has_secret and (host := in_the_clear(url, internal)):
                yield f"DRIVER_URLS[{name!r}]", host, "https://"
        for group in ("gateways", "drivers"):
            for name, options in getattr(self, group).items():
                chosen = options.get_secret_value()
                url = chosen.get("url")
                if not isinstance(url, str) or not url.startswith("http://"):
                    continue
                has_secret = (
                    group == "gateways"
                    or chosen.keys() & {"token", "key", "secret"}
                    or urlsplit(url).username
                )
                if has_secret and (host := in_the_clear(url, internal)):
                    yield f"{group.upper()}[{name!r}]", host, "https://"

    @model_validator(mode="after")
    def _no_weak_secrets(self) -> "Settings":
        if self.development:
            return self
        found = [
            *(f"{name} {why}" for name, s in self._made_here() if (why := weakness(s))),
            *(f"{name} {why}" for name, s in self._made_elsewhere() if (why := placeholder(s))),
        ]
        if found:
            raise ValueError("; ".join(found))
        return self

    def _made_here(self) -> Iterator[tuple[str, str]]:
        """Secrets that are this system's own, by the name of their setting."""
        for name, secret in (
            ("LINK_SECRET", self.link_secret),
            ("LINK_SECRET_PREVIOUS", self.link_secret_previous),
        ):
            if secret is not None:
                yield f"AUTORENEW_{name}", secret.get_secret_value()
        for name, passwords in (
            ("ROLE_PASSWORDS", self.role_passwords),
            ("BROKER_PASSWORDS", self.broker_passwords),
        ):
            for whose, secret in passwords.items():
                yield f"AUTORENEW_{name}[{whose!r}]", secret.get_secret_value()

    def _made_elsewhere(self) -> Iterator[tuple[str, str]]:
        """Secrets that a server or a far side knows: it may have chosen a short one."""
        for field in ("database_url", "read_database_url"):
            url = getattr(self, field)
            known = None if url is None else split_database(url.get_secret_value()).password
            if known is not None:
                yield f"the password in AUTORENEW_{field.upper()}", known
        for field in ("broker_management_url", "smtp_url"):
            url = getattr(self, field)
            password = None if url is None else urlsplit(url.get_secret_value()).password
            if password is not None:
                yield f"the password in AUTORENEW_{field.upper()}", unquote(password)
        if self.broker_url is not None:
            for broker in broker_urls.parse(self.broker_url.get_secret_value()):
                yield "the password in AUTORENEW_BROKER_URL", broker.password
        if self.gateway_token is not None:
            yield "AUTORENEW_GATEWAY_TOKEN", self.gateway_token.get_secret_value()
        for name, token in self.driver_tokens.items():
            yield f"AUTORENEW_DRIVER_TOKENS[{name!r}]", token.get_secret_value()
        for group in ("gateways", "drivers"):
            for name, options in getattr(self, group).items():
                for option in ("token", "secret"):
                    secret_of_it = options.get_secret_value().get(option)
                    if isinstance(secret_of_it, str):
                        yield f"AUTORENEW_{group.upper()}[{name!r}]: {option}", secret_of_it

    @model_validator(mode="after")
    def _time_to_drain(self) -> "Settings":
        """A task may take two calls: a query by key, then the operation itself."""
        if self.shutdown_seconds <= 2 * self.call_seconds:
            raise ValueError(
                "AUTORENEW_SHUTDOWN_SECONDS must be more than twice AUTORENEW_CALL_SECONDS"
            )
        return self

    def gateway_options(self) -> Options:
        """Every gateway that is configured, the short form included.

        Raises:
            ConfigurationError: none is, or one is configured twice.
        """
        options = dict(self.gateways)
        if self.gateway_url is not None:
            if DEFAULT_GATEWAY in options:
                raise ConfigurationError(
                    "AUTORENEW_GATEWAY_URL and AUTORENEW_GATEWAYS both name the gateway 'default'"
                )
            options[DEFAULT_GATEWAY] = _short(self.gateway_url, self.gateway_token)
        if not options:
            raise ConfigurationError(
                "AUTORENEW_GATEWAY_URL is not set (base URL of the payment gateway;"
                " or AUTORENEW_GATEWAYS)"
            )
        return options

    def driver_options(self) -> Options:
        """Every driver that is configured, the short form included.

        Raises:
            ConfigurationError: none is, or one is configured twice.
        """
        twice = sorted(self.drivers.keys() & self.driver_urls.keys())
        if twice:
            raise ConfigurationError(
                f"AUTORENEW_DRIVER_URLS and AUTORENEW_DRIVERS both name {', '.join(twice)}"
            )
        options = self.drivers | {
            name: _short(url, self.driver_tokens.get(name))
            for name, url in self.driver_urls.items()
        }
        if not options:
            raise ConfigurationError(
                "AUTORENEW_DRIVER_URLS is not set (driver name -> base URL, as"
                ' {"web": "http://…"}; or AUTORENEW_DRIVERS)'
            )
        return options

    def need(self, field: str) -> str:
        """The value of a setting this process cannot do without.

        Args:
            field: its name in this class.

        Raises:
            ConfigurationError: it is not set; the message names the variable and what it is.
        """
        value = getattr(self, field)
        if value is None:
            hint = type(self).model_fields[field].description
            raise ConfigurationError(f"AUTORENEW_{field.upper()} is not set ({hint})")
        return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _short(url: str, token: SecretStr | None) -> Secret[dict[str, Any]]:
    """The options of a far side of which only a URL is given, and perhaps a token."""
    if url == INSTANT:
        return Secret({"kind": "instant"})
    return Secret({"kind": "http", "url": url, **({"token": token} if token else {})})


def _scheme(value: SecretStr | None, *allowed: str) -> SecretStr | None:
    if value is not None:
        split_with_host(value.get_secret_value(), *allowed)
    return value


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment and the files it names.

    Args:
        overrides: values that replace those of the environment.

    Raises:
        ConfigurationError: a value is wrong; one line names every such variable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_line(problem["loc"], problem["msg"]) for problem in error.errors()]
        raise ConfigurationError("; ".join(lines)) from None


def _line(place: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not place:  # a rule about several settings, whose message names them
        return message
    field, *inside = place
    where = f"AUTORENEW_{str(field).upper()}{''.join(f'[{part!r}]' for part in inside)}"
    return where + message if message.startswith("[") else f"{where}: {message}"
