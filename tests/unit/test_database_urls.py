"""The URL of a database: in libpq's form, with one host or several."""

from typing import Any

import pytest

from schemas.database import connect
from schemas.errors import ConfigurationError
from schemas.settings import load_settings
from schemas.urls import password_in_the_clear, split_database


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://h/d", ("h",)),
        ("postgresql:///d", ()),
        ("postgresql://u:p@a,b:5433/d", ("a", "b")),
        ("postgresql://u:p@a:1,b:2,c/d?sslmode=require", ("a", "b", "c")),
        ("postgres://[::1]:5432,[fe80::1]/d", ("::1", "fe80::1")),
        ("postgresql://u:p@a,[::1]:2", ("a", "::1")),
        ("postgresql:///d?host=/run/postgresql", ("/run/postgresql",)),
        ("postgresql://a/d?host=b,c", ("b", "c")),
        ("postgresql://%2Frun%2Fpostgresql/d", ("/run/postgresql",)),
    ],
)
def test_hosts_of_a_url(url: str, hosts: tuple[str, ...]) -> None:
    assert split_database(url).hosts == hosts
    assert load_settings(database_url=url, internal_hosts=["a", "b", "c", "h", "fe80::1"])
    connect(url).dispose()


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("postgresql://h/d", None),
        ("postgresql://u@h/d", None),
        ("postgresql://u:p%40%2F%25@a,b/d", "p@/%"),
        ("postgresql://u@h/d?password=p", "p"),
    ],
)
def test_password_of_a_url(url: str, password: str | None) -> None:
    assert split_database(url).password == password


@pytest.mark.parametrize(
    "url",
    [
        "mysql://h/d", "h/d", "postgresql://h:x/d", "postgresql://a:1,b:99999/d",
        "postgresql://h:0/d", "postgresql://u:hunter2@x@h/d", "postgresql://u:hunter2%@h/d",
        "postgresql://u:hunter2%zz@h/d", "postgresql://[::1/d", "postgresql://a]/d",
        "postgresql://u:hunter2%00@h/d",
    ],
)  # fmt: skip
def test_url_that_cannot_be_one_is_refused_without_its_password(url: str) -> None:
    for use in (lambda: load_settings(database_url=url), lambda: connect(url)):
        with pytest.raises(ConfigurationError, match="AUTORENEW_DATABASE_URL") as refused:
            use()
        assert "hunter2" not in str(refused.value)


def test_password_goes_to_no_host_of_a_list_in_the_clear() -> None:
    url = "postgresql://u:p@localhost,far.example:5433/d"

    assert password_in_the_clear(url, []) == "far.example"
    assert password_in_the_clear(url, ["far.example"]) is None
    assert password_in_the_clear(f"{url}?sslmode=verify-full", []) is None


def test_unknown_option_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigurationError, match="AUTORENEW_DATABASE_URL"):
        connect("postgresql://u:p@localhost/d?no_such_option=1")


def test_shown_url_of_an_engine_leads_to_the_first_host() -> None:
    engine = connect("postgresql://u:p%40@a:1,b:2/d?sslmode=require")

    url: Any = engine.url
    assert (url.username, url.password, url.host, url.port, url.database) == (
        "u", "p@", "a", 1, "d",
    )  # fmt: skip
    assert "p@" not in repr(engine)
