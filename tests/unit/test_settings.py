import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from schemas.errors import ConfigurationError
from schemas.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.upper().startswith("AUTORENEW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(f"AUTORENEW_{name}", value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    return str(refused.value)


def test_nothing_has_to_be_set_to_begin_with() -> None:
    settings = load_settings()
    assert settings.database_url is None
    assert settings.driver_urls == {}
    assert settings.call_seconds < settings.lease_seconds


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", "postgresql://api:pw@db/autorenew")
    monkeypatch.setenv("AUTORENEW_DRIVER_URLS", json.dumps({"web": "http://web"}))
    monkeypatch.setenv("AUTORENEW_CALL_SECONDS", "2.5")
    settings = load_settings()
    assert settings.need("database_url") == "postgresql://api:pw@db/autorenew"
    assert settings.driver_urls == {"web": "http://web"}
    assert settings.call_seconds == 2.5


def test_what_a_test_or_the_demo_says_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTORENEW_BATCH", "7")
    assert load_settings(batch=9).batch == 9


@pytest.mark.parametrize(
    ("field", "variable"),
    [
        ("database_url", "AUTORENEW_DATABASE_URL"),
        ("broker_url", "AUTORENEW_BROKER_URL"),
        ("broker_management_url", "AUTORENEW_BROKER_MANAGEMENT_URL"),
        ("gateway_url", "AUTORENEW_GATEWAY_URL"),
        ("simulator_url", "AUTORENEW_SIMULATOR_URL"),
    ],
)
def test_a_setting_that_is_missing_is_one_line_that_names_the_variable(
    field: str, variable: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings().need(field)
    message = str(refused.value)
    assert message.startswith(f"{variable} is not set (")
    assert "\n" not in message
    assert "None" not in message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CALL_SECONDS", "soon"), ("CALL_SECONDS", "0"), ("CALL_SECONDS", "301"),
        ("CALL_SECONDS", "nan"), ("CALLS_AT_ONCE", "0"), ("CALLS_AT_ONCE", "1.5"),
        ("BATCH", "0"), ("BATCH", "5001"), ("LEASE_SECONDS", "-1"), ("DISPATCH_CAP", ""),
        ("RETRY_ATTEMPTS", "0"), ("POLL_SECONDS", "0"), ("METRICS_PORT", "http"),
        ("DATABASE_URL", "mysql://u@h/d"), ("DATABASE_URL", "h/d"), ("DATABASE_URL", ""),
        ("BROKER_URL", "http://h"), ("BROKER_URL", ""), ("ROLE_PASSWORDS", "[1]"),
        ("ROLE_PASSWORDS", '{"api": 5}'), ("ORDER_CHARGE_DELAYS", '["soon"]'),
        ("DRIVER_URLS", '"http://h"'),
    ],
)  # fmt: skip
def test_a_setting_that_is_wrong_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    message = refusal(monkeypatch, **{variable: value})
    assert message.startswith(f"AUTORENEW_{variable}")
    assert "\n" not in message


def test_a_setting_that_is_not_json_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, DRIVER_URLS="http://web")
    assert "driver_urls" in message.lower()
    assert "\n" not in message


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, BATCH="many", CALL_SECONDS="-1")
    assert "AUTORENEW_BATCH: " in message
    assert "AUTORENEW_CALL_SECONDS: " in message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("BROKER_URL", "hunter2"),
        ("ROLE_PASSWORDS", '{"api": ["hunter2"]}'),
        ("ROLE_PASSWORDS", '{"api": "hunter2"'),
        ("BROKER_PASSWORDS", "hunter2"),
        ("DRIVER_TOKENS", '["hunter2"]'),
    ],
)
def test_no_message_repeats_a_secret(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    assert "hunter2" not in refusal(monkeypatch, **{variable: value})


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    settings = load_settings(
        database_url="postgresql://u:hunter2@h/d",
        broker_url="amqp://u:hunter2@h",
        broker_management_url="http://u:hunter2@h",
        gateway_token="hunter2",
        driver_tokens={"web": "hunter2"},
        role_passwords={"api": "hunter2"},
        broker_passwords={"worker": "hunter2"},
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())
    assert settings.need("gateway_token") == "hunter2"


@pytest.mark.parametrize(
    "url",
    ["postgresql://h/d", "postgresql+psycopg://h/d", "postgres://h/d"],
)
def test_the_usual_ways_to_write_a_database_url_are_accepted(url: str) -> None:
    assert load_settings(database_url=url).need("database_url") == url


def test_settings_do_not_change_while_a_process_runs() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().batch = 1


def test_every_variable_a_person_may_miss_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in (SecretStr | None, str | None) and name != "gateway_token":
            assert field.description, name
