"""Gateways and drivers are found by the kind that is configured, and built from their settings."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from pydantic import BaseModel, Secret

from schemas.errors import ConfigurationError
from workers.outside import registry
from workers.provisioning.drivers.http import HttpDriver
from workers.provisioning.drivers.instant import InstantDriver


def build(**configured: Any) -> dict[str, Any]:
    options = {name: Secret(value) for name, value in configured.items()}
    return registry.build("drivers", options, seconds=7)


def points(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    found = [EntryPoint("mine", value, "autorenew.drivers") for value in values]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


def test_each_name_gets_a_port_of_its_kind() -> None:
    built = build(web={"kind": "http", "url": "http://h"}, cloud={"kind": "instant"})
    assert isinstance(built["web"], HttpDriver)
    assert isinstance(built["cloud"], InstantDriver)


def test_kind_that_is_not_named_is_http() -> None:
    assert isinstance(build(web={"url": "http://h"})["web"], HttpDriver)


def test_deadline_that_is_not_set_is_that_of_all_calls() -> None:
    assert build(web={"url": "http://h"})["web"]._calls._settings.seconds == 7
    assert build(web={"url": "http://h", "seconds": 3})["web"]._calls._settings.seconds == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "smoke-signal"}, "no kind 'smoke-signal' is installed; there are http, instant"),
        ({}, "url: Field required"),
        ({"url": "http://h", "tokn": "hunter2"}, "tokn: Extra inputs are not permitted"),
        ({"url": "ftp://h"}, "url: Value error, must start with https://"),
        ({"url": "http://h", "seconds": "hunter2"}, "seconds: Input should be a valid number"),
        ({"url": "http://h", "connections": 0}, "connections: Input should be greater than"),
        ({"url": "http://h", "token": "hunter2\n"}, "token: Value error, has a line break"),
    ],
)
def test_wrong_option_is_one_line_that_names_it_and_no_value(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        build(web=options)
    message = str(refused.value)
    assert message.startswith("AUTORENEW_DRIVERS['web']: ")
    assert said in message
    assert "\n" not in message
    assert "hunter2" not in message


def test_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, "no_such_package:Driver")
    with pytest.raises(ConfigurationError, match="no_such_package:Driver cannot be loaded: No mod"):
        build(web={"kind": "mine"})


def test_package_that_is_installed_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "workers.provisioning.drivers.instant:InstantDriver"
    points(monkeypatch, place, place)
    assert isinstance(build(web={"kind": "mine"})["web"], InstantDriver)


def test_kind_that_two_packages_offer_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, "a:Driver", "b:Driver")
    with pytest.raises(ConfigurationError, match="several packages offer the kind 'mine': a:Dri"):
        build(web={"kind": "mine"})


class Port:
    """A driver that lacks nothing."""

    class Settings(BaseModel):
        path: str = "/srv"
        options: dict[str, str] = {}

    immediate = False

    def __init__(self, name: str, settings: Settings) -> None:
        self.told = name, settings.path

    async def perform(self, operation: Any) -> Any: ...

    async def ask(self, operation: Any) -> Any: ...

    async def resources(self, after: str | None) -> Any: ...

    async def close(self) -> None: ...


def offer(monkeypatch: pytest.MonkeyPatch, offered: Any) -> None:
    class Point:
        name, value = "mine", "mine:Mine"

        def load(self) -> Any:
            return offered

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])


def test_settings_are_what_a_kind_says_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, Port)
    assert build(web={"kind": "mine", "path": "/var"})["web"].told == ("web", "/var")


class Blocking(Port):
    def perform(self, operation: Any) -> Any: ...  # type: ignore[override]


class Bare:
    Settings = Port.Settings

    def __init__(self, name: str, settings: Any) -> None: ...


class Undeclared(Port):
    Settings = dict  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (Blocking, "is not a driver: its method perform is not `async def`"),
        (Bare, "it has no method perform; it has no method ask; it has no method resources; it has"
               " no method close; its attribute immediate is neither True nor False"),
        (Undeclared, "mine:Mine is not a class with Settings, a pydantic model"),
        (Port("a", Port.Settings()), "mine:Mine is not a class with Settings, a pydantic model"),
        (object, "mine:Mine is not a class with Settings, a pydantic model"),
    ],
)  # fmt: skip
def test_what_is_no_driver_is_refused_when_it_is_built(
    monkeypatch: pytest.MonkeyPatch, offered: Any, said: str
) -> None:
    offer(monkeypatch, offered)
    with pytest.raises(ConfigurationError) as refused:
        build(web={"kind": "mine"})
    assert str(refused.value).startswith("AUTORENEW_DRIVERS['web']: mine:Mine")
    assert said in str(refused.value)


def test_driver_that_cannot_be_built_is_one_line_without_its_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing(Port):
        def __init__(self, name: str, settings: Any) -> None:
            raise RuntimeError(f"{settings.options['key']} of {settings.path} does not fit\n...")

    offer(monkeypatch, Failing)
    with pytest.raises(ConfigurationError) as refused:
        build(web={"kind": "mine", "path": "/srv/keys", "options": {"key": "hunter2"}})
    expected = "AUTORENEW_DRIVERS['web']: mine:Mine cannot be built: *** of *** does not fit"
    assert str(refused.value) == expected
