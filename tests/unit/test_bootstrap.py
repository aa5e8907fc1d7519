"""Which handlers a process gets: only what its queues need has to be configured."""

from datetime import UTC, datetime
from typing import Any

import pytest
from dramatiq.brokers.stub import StubBroker

from producers.steps import QUEUES, driver_place
from schemas.clock import FixedClock
from schemas.errors import ConfigurationError
from schemas.settings import Settings, load_settings
from schemas.values import Universe
from workers.bootstrap import INSTANT, add_actors, check_queues, handlers

CLOCK = FixedClock(datetime(2026, 3, 2, tzinfo=UTC))
UNIVERSES = [universe.value for universe in Universe]


def configured(**changes: Any) -> Settings:
    nothing: dict[str, Any] = {"gateway_url": None, "driver_urls": {}}
    return load_settings(**(nothing | changes))


def names(settings: Settings, *queues: str) -> dict[str, list[str]]:
    return {
        queue: [handler.name for handler in chosen]
        for queue, chosen in handlers(settings, queues, CLOCK).items()
    }


def test_there_is_a_queue_for_orders_for_billing_and_for_each_universe() -> None:
    assert set(QUEUES) == {"orders", "billing", *UNIVERSES}


@pytest.mark.parametrize("universe", UNIVERSES)
def test_a_service_is_converged_on_its_universes_queue_in_its_drivers_lane(universe: str) -> None:
    place = driver_place(universe, "metal")
    assert (place.queue, place.lane) == (universe, "driver:metal")


def test_orders_needs_neither_a_gateway_nor_drivers() -> None:
    assert names(configured(), "orders") == {"orders": ["price"]}


def test_billing_needs_a_gateway_and_no_drivers() -> None:
    assert names(configured(gateway_url=INSTANT), "billing") == {"billing": ["charge", "refund"]}


@pytest.mark.parametrize("universe", UNIVERSES)
def test_provisioning_needs_drivers_and_no_gateway(universe: str) -> None:
    settings = configured(driver_urls={"web": INSTANT})
    assert names(settings, universe) == {universe: ["converge"]}


def test_one_process_may_work_on_all_queues() -> None:
    settings = configured(gateway_url=INSTANT, driver_urls={"web": INSTANT})
    assert set(names(settings, *QUEUES)) == set(QUEUES)


@pytest.mark.parametrize(
    ("queue", "variable"), [("billing", "AUTORENEW_GATEWAY_URL"), ("web", "AUTORENEW_DRIVER_URLS")]
)
def test_what_is_missing_is_one_line_that_names_the_variable(queue: str, variable: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable} is not set") as refused:
        handlers(configured(), [queue], CLOCK)
    assert "\n" not in str(refused.value)


def test_a_queue_named_twice_is_one() -> None:
    assert check_queues(["web", "orders", "web"]) == ["web", "orders"]


@pytest.mark.parametrize("queues", [[], ["nonsense"], ["orders", "nonsense"], [""], ["Orders"]])
def test_a_queue_that_does_not_exist_is_one_clear_line(queues: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"there are orders, billing, web,") as refused:
        check_queues(queues)
    assert "\n" not in str(refused.value)


def test_what_answers_at_once_is_called_without_threads() -> None:
    settings = configured(gateway_url=INSTANT, driver_urls={"web": INSTANT, "cloud": "http://c"})
    chosen = handlers(settings, ["billing", "web"], CLOCK)
    assert all(handler.immediate for handler in chosen["billing"])  # type: ignore[union-attr]
    # One driver that does not is enough for a batch to need threads.
    assert not chosen["web"][0].immediate  # type: ignore[union-attr]


def test_an_actor_hands_what_it_gets_to_its_runtime() -> None:
    # Given a broker, and a runtime that keeps what it is asked for
    class Kept:
        def __init__(self) -> None:
            self.asked: list[tuple[str, str, Any]] = []

        def handle(self, handler: Any, queue: str, subjects: Any) -> None:
            self.asked.append((handler.name, queue, subjects))

    broker, kept = StubBroker(middleware=[]), Kept()
    settings = configured(gateway_url=INSTANT)
    add_actors(broker, handlers(settings, ["billing"], CLOCK), lambda _: kept)  # type: ignore[arg-type,return-value]
    # Then there is an actor for each step, named by its queue, and it decides nothing itself.
    assert set(broker.actors) == {"billing.charge", "billing.refund"}
    broker.actors["billing.charge"](["a"])
    assert kept.asked == [("charge", "billing", ["a"])]
    broker.close()
