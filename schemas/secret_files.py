"""Settings that are read from files, such as Docker's or systemd's secrets."""

import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from schemas.errors import ConfigurationError

FROM_FILES = (
    "database_url", "read_database_url", "broker_url", "broker_management_url", "role_passwords",
    "broker_passwords",
    "gateways", "gateway_url", "gateway_token", "drivers", "driver_urls", "driver_tokens",
    "smtp_url", "link_secret", "link_secret_previous", "oidc_client_secret",
    "traces_url",
)  # fmt: skip
"""The settings that may hold a secret: each may be read from a file."""


class SettingsFromFiles(PydanticBaseSettingsSource):
    """Reads the files that ``AUTORENEW_…_FILE`` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # only for sources that look at one field at a time

    def __call__(self) -> dict[str, str]:
        variables = {name.upper(): value for name, value in os.environ.items()}
        found: dict[str, str] = {}
        problems = []
        for field in FROM_FILES:
            name = f"AUTORENEW_{field.upper()}"
            path = variables.get(f"{name}_FILE")
            if path is None:
                continue
            try:
                if name in variables:
                    raise ValueError(f"{name} is set as well: give one of both")
                found[field] = _content_of(path)
            except ValueError as error:
                problems.append(f"{name}_FILE: {error}")
        if problems:
            raise ConfigurationError("; ".join(problems))
        return found


def _content_of(path: str) -> str:
    """The text of a file without the line end that editors and ``echo`` add.

    Raises:
        ValueError: it cannot be read, or is empty.
    """
    if not path:
        raise ValueError("names no file")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{path} is empty")
    return text
