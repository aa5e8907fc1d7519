import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from schemas.errors import ConfigurationError
from schemas.secret_files import FROM_FILES
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


def test_every_setting_has_a_default() -> None:
    settings = load_settings()
    assert settings.database_url is None
    assert settings.driver_urls == {}
    assert settings.call_seconds < settings.lease_seconds


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORENEW_DATABASE_URL", "postgresql://api:pw@localhost/autorenew")
    monkeypatch.setenv("AUTORENEW_DRIVER_URLS", json.dumps({"web": "http://web"}))
    monkeypatch.setenv("AUTORENEW_CALL_SECONDS", "2.5")
    settings = load_settings()
    assert settings.need("database_url") == "postgresql://api:pw@localhost/autorenew"
    assert settings.driver_urls == {"web": "http://web"}
    assert settings.call_seconds == 2.5


def test_explicit_settings_override_the_environment(
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
        ("smtp_url", "AUTORENEW_SMTP_URL"),
        ("mail_from", "AUTORENEW_MAIL_FROM"),
        ("link_base_url", "AUTORENEW_LINK_BASE_URL"),
        ("account_url", "AUTORENEW_ACCOUNT_URL"),
        ("link_secret", "AUTORENEW_LINK_SECRET"),
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
        # Not JSON.
        ("DRIVER_URLS", "http://web"), ("ROLE_PASSWORDS", "pw"), ("BROKER_PASSWORDS", "{'a': 1}"),
        ("DRIVER_TOKENS", ""), ("ORDER_CHARGE_DELAYS", "[" * 100_000),
        # Out of bounds.
        ("METRICS_PORT", "65536"), ("METRICS_PORT", "-1"), ("ORDER_CHARGE_DELAYS", "[-1]"),
        ("ORDER_CHARGE_DELAYS", "[Infinity]"), ("ORDER_CHARGE_DELAYS", "[NaN]"),
        ("LEASE_SECONDS", "inf"), ("RESCUE_SECONDS", "inf"), ("POLL_SECONDS", "nan"),
        ("SHUTDOWN_SECONDS", "inf"), ("RETRY_BASE_SECONDS", "inf"), ("RETRY_CAP_SECONDS", "1e300"),
        ("LOG_LEVEL", "noise"), ("LOG_LEVEL", ""),
        # Ports that cannot be.
        ("DATABASE_URL", "postgresql://h:port/d"), ("DATABASE_URL", "postgresql://h:65536/d"),
        ("DATABASE_URL", "postgresql://u:a/b@h/d"), ("DATABASE_URL", "postgresql"),
        ("BROKER_URL", "amqp://h:port"), ("BROKER_URL", "amqp://[::1"),
        ("BROKER_MANAGEMENT_URL", "http://h:port"), ("BROKER_MANAGEMENT_URL", "h:15672"),
        ("GATEWAY_URL", "http://h:port"), ("GATEWAY_URL", "http://h:-1"),
        ("GATEWAYS", "[]"), ("GATEWAYS", "{"), ("GATEWAYS", '{"a": 1}'), ("DRIVERS", '{"a": "b"}'),
        ("RETRIES", '{"fax": {}}'), ("RETRIES", '{"mail": {"attempts": 0}}'),
        ("RETRIES", '{"mail": {"tries": 3}}'),
        ("DRIVER_URLS", '{"web": "http://h:port"}'), ("SMTP_URL", "smtp://h:port"),
        ("SMTP_URL", "smtp://h:65536"), ("SMTP_URL", "smtps://u:a/b@h"),
        # What renewals need.
        ("SMTP_URL", ""), ("SMTP_URL", "h:25"), ("SMTP_URL", "http://h"), ("SMTP_URL", "smtp:h"),
        ("SMTP_URL", "instant"), ("LINK_BASE_URL", ""), ("LINK_BASE_URL", "my.example.com"),
        ("LINK_BASE_URL", "ftp://my.example.com"), ("LINK_BASE_URL", "javascript:alert()"),
        ("CLOCK", "fixed"), ("CLOCK", ""), ("CLOCK", "Virtual"),
        ("SWEEP_SECONDS", "0"), ("SWEEP_SECONDS", "nan"), ("SWEEP_SECONDS", "often"),
        ("SILENCE_SECONDS", "0"), ("SILENCE_SECONDS", "-1"), ("SILENCE_SECONDS", "inf"),
        ("SILENCE_SECONDS", "1e300"), ("DESTRUCTIVE_WINDOW_SECONDS", "0"),
        ("DESTRUCTIVE_WINDOW_SECONDS", "inf"), ("DESTRUCTIVE_MOST", "0"),
        ("DESTRUCTIVE_MOST", "1.5"), ("DESTRUCTIVE_SHARE", "0"), ("DESTRUCTIVE_SHARE", "1.1"),
        ("DESTRUCTIVE_SHARE", "2 %"), ("DESTRUCTIVE_SHARE", "nan"),
    ],
    ids=lambda value: value[:30],
)  # fmt: skip
def test_a_setting_that_is_wrong_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    message = refusal(monkeypatch, **{variable: value})
    assert message.startswith(f"AUTORENEW_{variable}")
    assert "\n" not in message


def test_problem_inside_a_json_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, DRIVER_URLS='{"web": "http://h:port"}')
    assert message.startswith("AUTORENEW_DRIVER_URLS['web']: ")
    message = refusal(monkeypatch, DRIVER_URLS="{}", ORDER_CHARGE_DELAYS="[60, -1]")
    assert message.startswith("AUTORENEW_ORDER_CHARGE_DELAYS[1]: ")


@pytest.mark.parametrize(("call", "shutdown"), [("10", "20"), ("60", "60"), ("300", "59")])
def test_a_process_has_time_for_two_calls_when_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, call: str, shutdown: str
) -> None:
    # A call may be a question, and then the call itself.
    message = refusal(monkeypatch, CALL_SECONDS=call, SHUTDOWN_SECONDS=shutdown)
    assert message == "AUTORENEW_SHUTDOWN_SECONDS must be more than twice AUTORENEW_CALL_SECONDS"


def test_shutdown_time_of_a_little_more_than_two_calls_is_accepted() -> None:
    assert load_settings(call_seconds=10, shutdown_seconds=20.1).shutdown_seconds == 20.1


@pytest.mark.parametrize("level", ["debug", "INFO", "Warning"])
def test_log_level_may_be_lower_case(level: str) -> None:
    assert load_settings(log_level=level).log_level == level.upper()


@pytest.mark.parametrize("port", [0, 9100, 65535])
def test_metrics_may_be_served_on_any_port(port: int) -> None:
    assert load_settings(metrics_port=port).metrics_port == port


def test_all_wrong_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
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
        ("DATABASE_URL", "postgresql://u:hunter2/@h/d"),
        ("BROKER_URL", "amqp://u:hunter2#@h"),
        ("BROKER_MANAGEMENT_URL", "http://u:hunter2?@h"),
        ("BROKER_MANAGEMENT_URL", "hunter2"),
        ("SMTP_URL", "hunter2"),
        ("SMTP_URL", "http://u:hunter2@h"),
        ("SMTP_URL", "smtps://u:hunter2/@h"),
    ],
)
def test_messages_never_repeat_a_secret(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    assert "hunter2" not in refusal(monkeypatch, **{variable: value})


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    settings = load_settings(
        database_url="postgresql://u:hunter2@h/d",
        broker_url="amqp://u:hunter2@h",
        broker_management_url="http://u:hunter2@h",
        gateway_token="hunter2",
        smtp_url="smtps://u:hunter2@h",
        link_secret="hunter2",
        driver_tokens={"web": "hunter2"},
        role_passwords={"api": "hunter2"},
        broker_passwords={"worker": "hunter2"},
        development=True,
        internal_hosts=["h"],
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())
    assert settings.need("gateway_token") == "hunter2"
    assert settings.need("smtp_url") == "smtps://u:hunter2@h"
    assert settings.need("link_secret") == "hunter2"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"LINK_SECRET": "hunter2"}, "AUTORENEW_LINK_SECRET must have at least 16 characters"),
        ({"LINK_SECRET": " " * 16}, "AUTORENEW_LINK_SECRET is blank"),
        ({"LINK_SECRET": ""}, "AUTORENEW_LINK_SECRET is blank"),
        ({"LINK_SECRET": "hunter2" * 3}, "AUTORENEW_LINK_SECRET repeats the same characters"),
        ({"LINK_SECRET_PREVIOUS": "hunter2"}, "AUTORENEW_LINK_SECRET_PREVIOUS must have"),
        ({"ROLE_PASSWORDS": '{"api": "hunter2"}'}, "AUTORENEW_ROLE_PASSWORDS['api'] must have"),
        ({"BROKER_PASSWORDS": '{"relay": " "}'}, "AUTORENEW_BROKER_PASSWORDS['relay'] is blank"),
        (
            {"DATABASE_URL": "postgresql://u:development-only@localhost/d"},
            "the password in AUTORENEW_DATABASE_URL is a default that everybody knows",
        ),
        ({"BROKER_URL": "amqp://u:development%2Donly@localhost"}, "AUTORENEW_BROKER_URL is a def"),
        ({"GATEWAY_TOKEN": "development-only"}, "AUTORENEW_GATEWAY_TOKEN is a default"),
        ({"DRIVER_TOKENS": '{"web": " "}'}, "AUTORENEW_DRIVER_TOKENS['web'] is blank"),
        (
            {"GATEWAYS": '{"a": {"url": "https://a", "token": "development-only"}}'},
            "AUTORENEW_GATEWAYS['a']: token is a default that everybody knows",
        ),
        (
            {"DRIVERS": '{"a": {"kind": "mine", "secret": "development-only"}}'},
            "AUTORENEW_DRIVERS['a']: secret is a default that everybody knows",
        ),
    ],
    ids=str,
)
def test_weak_secret_is_refused_by_the_name_of_its_setting_unless_for_development(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], named: str
) -> None:
    message = refusal(monkeypatch, **settings)
    assert named in message
    assert "hunter2" not in message
    monkeypatch.setenv("AUTORENEW_DEVELOPMENT", "true")
    load_settings()


def test_all_weak_secrets_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, LINK_SECRET="short", ROLE_PASSWORDS='{"api": "a", "relay": "b"}')
    assert message.count("at least 16 characters") == 3


def test_previous_secret_that_is_empty_is_none() -> None:
    assert load_settings(link_secret_previous="").link_secret_previous is None


def test_short_password_that_a_server_knows_is_accepted() -> None:
    settings = load_settings(gateway_token="t", broker_url="amqp://u:short@localhost")
    assert settings.need("gateway_token") == "t"


@pytest.mark.parametrize(
    "url",
    ["postgresql://h/d", "postgresql+psycopg://h/d", "postgres://h/d"],
)
def test_the_usual_ways_to_write_a_database_url_are_accepted(url: str) -> None:
    assert load_settings(database_url=url).need("database_url") == url


@pytest.mark.parametrize(
    "url",
    ["smtp://h", "smtp://h:25", "smtp+starttls://u:p%40@h:587", "smtps://u:p@h:465", "instant:"],
)
def test_a_mail_server_is_reached_in_the_clear_or_by_either_way_to_encrypt(url: str) -> None:
    assert load_settings(smtp_url=url).need("smtp_url") == url


@pytest.mark.parametrize("url", ["https://my.example.com", "http://localhost:8080/path"])
def test_links_may_lead_anywhere_on_the_web(url: str) -> None:
    assert load_settings(link_base_url=url).need("link_base_url") == url


def test_settings_of_renewals_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "mail_from": "Hosting <billing@example.com>", "clock": "virtual", "sweep_seconds": 0.5,
        "silence_seconds": 93_600, "destructive_window_seconds": 3600, "destructive_most": 5,
        "destructive_share": 1,
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"AUTORENEW_{name.upper()}", str(value))
    settings = load_settings()
    assert {name: getattr(settings, name) for name in given} == given


def test_defaults_are_the_real_clock_and_few_ends_in_a_window() -> None:
    settings = load_settings()
    assert settings.clock == "system"
    assert settings.destructive_share < 0.1
    # A scheduler that looks is not taken for one that is silent.
    assert settings.sweep_seconds < settings.silence_seconds


def test_an_empty_account_page_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORENEW_ACCOUNT_URL", "")
    assert load_settings().account_url is None


def test_settings_do_not_change_while_a_process_runs() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().batch = 1


def test_every_setting_that_may_be_missing_has_a_description() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in (SecretStr | None, str | None) and name != "gateway_token":
            assert field.description, name


SECRET_SETTINGS = [
    name
    for name, field in Settings.model_fields.items()
    if "Secret" in str(field.annotation) or name.endswith(("_url", "_urls"))
    # They are in e-mails, and in browsers.
    if name not in ("link_base_url", "account_url", "console_url")
]


def test_every_setting_that_may_hold_a_secret_may_come_from_a_file() -> None:
    assert set(FROM_FILES) == set(SECRET_SETTINGS)


class TestSettingsFromFiles:
    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    def test_file_is_read_without_the_end_of_its_line(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
    ) -> None:
        (tmp_path / "secret").write_bytes(f"what signs the links{end}".encode())
        monkeypatch.setenv("AUTORENEW_LINK_SECRET_FILE", str(tmp_path / "secret"))
        assert load_settings().need("link_secret") == "what signs the links"

    def test_json_and_urls_may_come_from_files(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "tokens").write_text('{"web": "token of web"}\n')
        (tmp_path / "database").write_text("postgresql://u:password@localhost/d\n")
        monkeypatch.setenv("AUTORENEW_DRIVER_TOKENS_FILE", str(tmp_path / "tokens"))
        monkeypatch.setenv("AUTORENEW_DATABASE_URL_FILE", str(tmp_path / "database"))
        settings = load_settings()
        assert settings.driver_tokens["web"].get_secret_value() == "token of web"
        assert settings.need("database_url") == "postgresql://u:password@localhost/d"

    def test_file_and_variable_at_once_are_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_text("what signs the links")
        message = refusal(
            monkeypatch, LINK_SECRET="hunter2", LINK_SECRET_FILE=str(tmp_path / "secret")
        )
        assert message == (
            "AUTORENEW_LINK_SECRET_FILE: AUTORENEW_LINK_SECRET is set as well: give one of both"
        )

    @pytest.mark.parametrize(
        ("path", "content", "why"),
        [
            ("missing", None, "missing: No such file or directory"),
            ("", None, "names no file"),
            (".", None, "Is a directory"),
            ("empty", b"", "empty is empty"),
            ("line", b"\n", "line is empty"),
            ("binary", b"\xff\xfehunter2", "binary is not UTF-8"),
        ],
    )
    def test_file_that_holds_no_secret_is_one_line_that_names_the_variable(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        path: str,
        content: bytes | None,
        why: str,
    ) -> None:
        if content is not None:
            (tmp_path / path).write_bytes(content)
        message = refusal(monkeypatch, SMTP_URL_FILE=path)
        assert message.startswith("AUTORENEW_SMTP_URL_FILE: ")
        assert why in message
        assert "\n" not in message
        assert "hunter2" not in message

    def test_all_files_that_cannot_be_read_are_reported_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        message = refusal(monkeypatch, SMTP_URL_FILE="one", DATABASE_URL_FILE="other")
        assert message.count("No such file") == 2

    def test_value_of_a_file_is_checked_and_not_repeated(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "url").write_text("mysql://u:hunter2@h/d")
        message = refusal(monkeypatch, DATABASE_URL_FILE=str(tmp_path / "url"))
        assert message == "AUTORENEW_DATABASE_URL: must start with postgresql://"


class TestEncryption:
    """Where a password or a token is sent, it is encrypted."""

    IN_THE_CLEAR = (
        ({"BROKER_URL": "amqp://u:hunter2@far"}, "AUTORENEW_BROKER_URL"),
        ({"BROKER_URL": "amqp://far"}, "AUTORENEW_BROKER_URL"),  # as guest, with its password
        ({"BROKER_MANAGEMENT_URL": "http://u:hunter2@far"}, "AUTORENEW_BROKER_MANAGEMENT_URL"),
        ({"DATABASE_URL": "postgresql://u:hunter2@far/d"}, "AUTORENEW_DATABASE_URL"),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@far/d?sslmode=prefer"},
            "AUTORENEW_DATABASE_URL",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@localhost/d?host=far"},
            "AUTORENEW_DATABASE_URL",
        ),
        (
            {"DATABASE_URL": "postgresql:///d?host=/run,far&password=hunter2"},
            "AUTORENEW_DATABASE_URL",
        ),
        ({"SMTP_URL": "smtp://u:hunter2@far"}, "AUTORENEW_SMTP_URL"),
        ({"LINK_BASE_URL": "http://far"}, "AUTORENEW_LINK_BASE_URL"),
        ({"GATEWAY_URL": "http://far/v1", "GATEWAY_TOKEN": "hunter2"}, "AUTORENEW_GATEWAY_URL"),
        ({"GATEWAY_URL": "http://far"}, "AUTORENEW_GATEWAY_URL"),  # is sent payment methods
        ({"GATEWAYS": '{"a": {"url": "http://far"}}'}, "AUTORENEW_GATEWAYS['a']"),
        (
            {"DRIVER_URLS": '{"web": "http://far"}', "DRIVER_TOKENS": '{"web": "hunter2"}'},
            "AUTORENEW_DRIVER_URLS['web']",
        ),
        ({"DRIVER_URLS": '{"web": "http://u:hunter2@far"}'}, "AUTORENEW_DRIVER_URLS['web']"),
        (
            {"DRIVERS": '{"b": {"kind": "mine", "url": "http://far", "token": "hunter2"}}'},
            "AUTORENEW_DRIVERS['b']",
        ),
        (
            {"DRIVERS": '{"b": {"kind": "mine", "url": "http://far", "secret": "hunter2"}}'},
            "AUTORENEW_DRIVERS['b']",
        ),
        (
            {"DRIVERS": '{"b": {"kind": "mine", "url": "http://far", "key": "hunter2"}}'},
            "AUTORENEW_DRIVERS['b']",
        ),
    )

    @pytest.mark.parametrize(("settings", "named"), IN_THE_CLEAR, ids=str)
    def test_secret_to_another_machine_is_not_sent_in_the_clear(
        self, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], named: str
    ) -> None:
        message = refusal(monkeypatch, **settings)
        assert message.startswith(f"{named}: what far is sent would travel in the clear: use ")
        assert "hunter2" not in message

    @pytest.mark.parametrize(("settings", "_named"), IN_THE_CLEAR, ids=str)
    def test_host_that_is_named_as_internal_is_an_exception(
        self, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], _named: str
    ) -> None:
        refusal(monkeypatch, INTERNAL_HOSTS='["near"]', **settings)
        monkeypatch.setenv("AUTORENEW_INTERNAL_HOSTS", '["near", "FAR"]')
        load_settings()

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
    @pytest.mark.parametrize(("settings", "_named"), IN_THE_CLEAR[:1] + IN_THE_CLEAR[7:], ids=str)
    def test_this_machine_is_an_exception(
        self, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], _named: str, host: str
    ) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"AUTORENEW_{name}", value.replace("far", host))
        load_settings()

    @pytest.mark.parametrize(
        "settings",
        [
            {"BROKER_URL": "amqps://u:hunter2@far"},
            {"BROKER_MANAGEMENT_URL": "https://u:hunter2@far"},
            {"DATABASE_URL": "postgresql://u:hunter2@far/d?sslmode=require"},
            {"DATABASE_URL": "postgresql://u:hunter2@far/d?sslmode=verify-full"},
            {"DATABASE_URL": "postgresql://u:hunter2@/d?host=/run/postgresql"},
            {"DATABASE_URL": "postgresql://u@far/d"},
            {"SMTP_URL": "smtp://far"},
            {"SMTP_URL": "smtp+starttls://u:hunter2@far"},
            {"GATEWAY_URL": "https://far/v1", "GATEWAY_TOKEN": "hunter2"},
            {"DRIVER_URLS": '{"web": "http://far"}', "DRIVER_TOKENS": '{"cloud": "hunter2"}'},
        ],
        ids=str,
    )
    def test_encrypted_connection_or_one_without_a_secret_is_accepted(
        self, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
    ) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"AUTORENEW_{name}", value)
        load_settings()

    @pytest.mark.parametrize("hosts", ["postgres", '["*"]', '[""]', "{}", '["http://h"]', "[1]"])
    def test_internal_hosts_are_a_list_of_names(
        self, monkeypatch: pytest.MonkeyPatch, hosts: str
    ) -> None:
        assert refusal(monkeypatch, INTERNAL_HOSTS=hosts).startswith("AUTORENEW_INTERNAL_HOSTS")


@pytest.mark.parametrize(
    "url",
    ["", "ftp://gateway", "gateway", "http://", "https:///v1", "https://h/?a=b", "https://h/#a",
     "https://h/a b", "https://h/\tb", "https://hé", "javascript:alert(1)", "instant", "https:/h"],
)  # fmt: skip
def test_url_of_a_far_side_or_of_links_that_is_none_is_refused_when_settings_are_loaded(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for variable, value, named in (
        ("GATEWAY_URL", url, "GATEWAY_URL: "),
        ("LINK_BASE_URL", url, "LINK_BASE_URL: "),
        ("DRIVER_URLS", json.dumps({"web": url}), "DRIVER_URLS['web']: "),
        ("GATEWAYS", json.dumps({"a": {"url": url}}), "GATEWAYS['a']: url "),
        ("DRIVERS", json.dumps({"a": {"kind": "http", "url": url}}), "DRIVERS['a']: url "),
    ):
        assert refusal(monkeypatch, **{variable: value}).startswith(f"AUTORENEW_{named}")
        monkeypatch.delenv(f"AUTORENEW_{variable}")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("BROKER_URL", "amqp://"), ("BROKER_URL", "amqps://u:p@"), ("SMTP_URL", "smtps://"),
     ("BROKER_MANAGEMENT_URL", "https://")],
)  # fmt: skip
def test_url_of_a_server_names_a_host(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    assert refusal(monkeypatch, **{variable: value}) == f"AUTORENEW_{variable}: names no host"
