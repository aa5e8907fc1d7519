"""What AUTORENEW_BROKER_URL may be, and what is said of one that cannot be used."""

from pathlib import Path

import pytest

from producers.broker import Hosts
from schemas.broker_urls import BrokerUrl, parse
from schemas.errors import ConfigurationError
from schemas.settings import load_settings


def test_url_is_taken_apart_and_what_is_percent_encoded_is_decoded() -> None:
    (url,) = parse("amqps://us%40er:p%2Fw%3A%2C@broker.example/my%2Fvhost")

    assert url == BrokerUrl("broker.example", 5671, "my/vhost", "us@er", "p/w:,", tls=True)
    assert "p/w" not in repr(url)


@pytest.mark.parametrize(
    ("text", "vhost"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h/%2F", "/"),
        ("amqp://h/shop", "shop"),
        ("amqp://h/a%2Fb", "a/b"),
    ],
)
def test_vhost_without_a_name_is_the_default_one(text: str, vhost: str) -> None:
    assert parse(text)[0].vhost == vhost


def test_several_urls_are_separated_by_commas_also_where_a_password_has_one() -> None:
    found = parse("amqp://u:a,b@one:1/v, amqp://u:a,b@[::1]/v,amqps://u:a,b@three/v")

    assert [url.place for url in found] == ["one:1", "[::1]:5672", "three:5671"]
    assert {url.password for url in found} == {"a,b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://h", "must start with amqp://"),
        ("amqp://", "names no host"),
        ("amqp://u:p@h:99999", "port up to 65535"),
        ("amqp://u@h", "a user without a password"),
        ("amqp://u:p@h/a/b", "%2F"),
        ("amqp://u:p#q@h", "port up to 65535|%23|names no host"),
        ("amqp://u:pä@h", "characters"),
        ("amqp://h?heartbeat=5", "no option heartbeat; there are cafile, certfile, keyfile"),
        ("amqps://h?ssl_options={'cafile':'x'}", "no option ssl_options"),
        ("amqps://h?cafile", "NAME=VALUE"),
        ("amqps://h?cafile=", "cafile is empty"),
        ("amqps://h?cafile=/no/such/file", "cafile /no/such/file: No such file"),
        ("amqps://h?certfile=/", "certfile /: Is a directory"),
        ("amqp://h?server_name=x", "for amqps:// only"),
        ("amqps://h?server_name=x&server_name=y", "twice"),
        ("amqps://h?keyfile={here}", "needs a certfile"),
        ("amqp://h/a,amqp://i/b", "the same vhost"),
        ("amqp://h/a,", "followed by another URL"),
    ],
)
def test_url_that_cannot_be_used_is_refused_in_one_line_that_repeats_no_password(
    text: str, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"AUTORENEW_BROKER_URL: .*({said})") as raised:
        load_settings(broker_url=text.replace("{here}", __file__), internal_hosts=["h", "i"])

    assert "\n" not in str(raised.value)
    assert ":p" not in str(raised.value)


def test_every_host_of_a_list_must_be_encrypted_or_internal() -> None:
    urls = "amqps://u:p@one/v,amqp://u:p@two/v"

    with pytest.raises(ConfigurationError, match="what two is sent would travel in the clear"):
        load_settings(broker_url=urls)
    load_settings(broker_url=urls, internal_hosts=["two"])


def test_every_password_of_a_list_is_looked_at() -> None:
    with pytest.raises(ConfigurationError, match="the password in AUTORENEW_BROKER_URL"):
        load_settings(broker_url="amqps://u:good-one@one,amqps://u:development-only@two")


@pytest.mark.parametrize("option", ["cafile", "certfile"])
def test_file_that_is_no_certificate_is_named(option: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.pem"
    file.write_text("nonsense")

    with pytest.raises(ConfigurationError, match=f"AUTORENEW_BROKER_URL: {option} {file}"):
        Hosts(f"amqps://h/?{option}={file}", name="test")
