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


def test_settings_are_what_a_kind_says_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine:
        class Settings(BaseModel):
            path: str

        def __init__(self, name: str, settings: Settings) -> None:
            self.told = name, settings.path

    class Point:
        name, value = "mine", "mine:Mine"

        def load(self) -> Any:
            return Mine

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    assert build(web={"kind": "mine", "path": "/srv"})["web"].told == ("web", "/srv")
