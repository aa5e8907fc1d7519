"""What the Python client reads: models made from the OpenAPI document, and both clients alike."""

import dataclasses
import inspect
from datetime import UTC, datetime
from typing import Any

import pytest

from autorenew.contract import models as made
from producers import AsyncClient, Client
from producers.client import models
from producers.client.models import Customer, Money, ServiceRow
from producers.client.reading import read

ROW = {
    "id": "3f0b6f9e-0000-4000-8000-000000000000", "customer": "alice", "plan": "site",
    "universe": "web", "brand": "ovh", "subsidiary": "FR", "name": None, "period": "P1M",
    "state": "active", "mode": "automatic", "expires_at": "2026-03-01T00:00:00Z",
    "next_step": None, "next_step_at": None, "resource_id": None, "suspended_because": None,
}  # fmt: skip


def test_models_are_those_of_the_document() -> None:
    assert made.FILE.read_text() == made.source(), "python -m autorenew.contract"


def test_models_are_frozen() -> None:
    money = read(Money, {"amount": 4544, "currency": "EUR"})
    assert money == Money(amount=4544, currency="EUR")
    with pytest.raises(dataclasses.FrozenInstanceError):
        money.amount = 0  # type: ignore[misc]
    for name in models.__all__:
        model = getattr(models, name)
        assert model.__dataclass_params__.frozen, name


def test_fields_and_values_of_a_newer_release_do_no_harm() -> None:
    row = ROW | {"state": "asleep", "colour": {"of": "the day"}}
    found = read(ServiceRow, row)
    assert found.state == "asleep"
    assert not hasattr(found, "colour")
    assert found.expires_at == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"customer": 7}, TypeError),
        ({"expires_at": "soon"}, ValueError),
        ({"id": None}, TypeError),
    ],
)
def test_what_is_no_answer_of_ours_is_not_taken(change: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(ServiceRow, ROW | change)
    with pytest.raises(TypeError):
        read(Customer, [])


def public(kind: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and (not name.startswith("_") or name == "__init__")
    }


def test_both_clients_offer_the_same() -> None:
    one, other = public(Client), public(AsyncClient)
    assert one.keys() == other.keys()
    for name in one:
        first, second = inspect.signature(one[name]), inspect.signature(other[name])
        assert list(first.parameters.values()) == list(second.parameters.values()), name
        assert _awaited(first) == _awaited(second), name
        is_iterated = "Iterator" in str(first.return_annotation)
        if name != "__init__" and not is_iterated:
            assert inspect.iscoroutinefunction(other[name]), name
        assert not inspect.iscoroutinefunction(one[name]), name
        said = (inspect.getdoc(one[name]), inspect.getdoc(other[name]))
        assert said[0] == said[1] or said[1] == f"As :meth:`Client.{name}`.", name


def _awaited(signature: inspect.Signature) -> str:
    return str(signature.return_annotation).replace("AsyncIterator", "Iterator")
