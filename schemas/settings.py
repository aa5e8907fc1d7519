"""The one settings object: read from the environment, every name starts with AUTORENEW_."""

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import ConfigurationError


class Settings(BaseSettings):
    """Everything a process can be told. A field a process needs and lacks is one clear line."""

    model_config = SettingsConfigDict(env_prefix="AUTORENEW_", extra="ignore", frozen=True)

    database_url: SecretStr | None = Field(None, description="postgresql://user:pw@host/database")
    broker_url: SecretStr | None = Field(None, description="amqp://user:pw@host:5672/vhost")
    broker_management_url: SecretStr | None = Field(
        None, description="http://admin:pw@host:15672, used by `broker setup` to create users"
    )
    role_passwords: dict[str, SecretStr] = Field({}, description="database role -> password")
    broker_passwords: dict[str, SecretStr] = Field({}, description="broker user -> password")
    gateway_url: str | None = Field(None, description="base URL of the payment gateway")
    gateway_token: SecretStr | None = None
    driver_urls: dict[str, str] = Field({}, description="driver name -> base URL")
    driver_tokens: dict[str, SecretStr] = {}
    simulator_url: str | None = Field(None, description="where `audit` finds the far side's books")

    call_seconds: float = Field(10.0, gt=0, le=300, description="deadline of one outside call")
    calls_at_once: int = Field(16, ge=1, le=500, description="outside calls of one batch")
    lease_seconds: float = Field(60.0, gt=0, description="a worker's hold on a task")
    rescue_seconds: float = Field(30.0, gt=0, description="dispatched and not claimed: again")
    dispatch_cap: int = Field(4000, ge=1, description="dispatched, not yet claimed, per queue")
    batch: int = Field(500, ge=1, le=5000, description="most tasks in one message")
    poll_seconds: float = Field(0.02, gt=0, description="how often an idle relay looks")
    shutdown_seconds: float = Field(60.0, gt=0, description="how long SIGTERM may take")
    order_charge_delays: list[float] = Field(
        [60.0, 600.0], description="seconds between the charges of an order that is declined"
    )
    retry_base_seconds: float = Field(5.0, gt=0, description="backoff of the first retry")
    retry_cap_seconds: float = Field(3600.0, gt=0)
    retry_attempts: int = Field(8, ge=1, description="failures until a person decides")
    metrics_port: int | None = Field(None, description="serve /metrics here; 0: any free port")
    metrics_host: str = "127.0.0.1"
    log_level: str = "INFO"

    @field_validator("database_url", mode="after")
    @classmethod
    def _database_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        return _scheme(value, "postgresql", "postgresql+psycopg", "postgres")

    @field_validator("broker_url", mode="after")
    @classmethod
    def _broker_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        return _scheme(value, "amqp", "amqps")

    def need(self, field: str) -> str:
        """The value of a setting this process cannot do without."""
        value = getattr(self, field)
        if value is None:
            hint = type(self).model_fields[field].description
            raise ConfigurationError(f"AUTORENEW_{field.upper()} is not set ({hint})")
        return str(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _scheme(value: SecretStr | None, *allowed: str) -> SecretStr | None:
    if value is not None and urlsplit(value.get_secret_value()).scheme not in allowed:
        raise ValueError(f"must start with {allowed[0]}://")
    return value


def load_settings(**overrides: Any) -> Settings:
    """Read the environment; a wrong value is one line that names the variable."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"AUTORENEW_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False)
        ]
        raise ConfigurationError("; ".join(lines)) from None
    except ValueError as error:  # a JSON setting that is not JSON
        raise ConfigurationError(str(error)) from None
