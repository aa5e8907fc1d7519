"""Which handlers a process gets: only what its queues need has to be configured."""

from datetime import UTC, datetime
from typing import Any

import pytest
from dramatiq.brokers.stub import StubBroker

from producers.ledger import GUARDED_LANES
from producers.steps import QUEUES, STEPS, StepKind, driver_place
from schemas.clock import FixedClock
from schemas.errors import ConfigurationError
from schemas.settings import INSTANT, Settings, load_settings
from schemas.values import Universe
from workers.bootstrap import add_actors, check_queues, handlers

CLOCK = FixedClock(datetime(2026, 3, 2, tzinfo=UTC))
UNIVERSES = [universe.value for universe in Universe]
MAIL: dict[str, Any] = {
    "smtp_url": "smtp://mail.example.com:25",
    "mail_from": "Hosting <billing@example.com>",
    "link_base_url": "https://my.example.com",
    "link_secret": "what signs the links",
}
BILLING = ["charge", "refund", "request", "withdraw", "suspend", "terminate", "by_hand"]


def configured(**changes: Any) -> Settings:
    nothing: dict[str, Any] = {"gateway_url": None, "driver_urls": {}} | dict.fromkeys(MAIL)
    return load_settings(**(nothing | changes))


def names(settings: Settings, *queues: str) -> dict[str, list[str]]:
    return {
        queue: [handler.name for handler in chosen]
        for queue, chosen in handlers(settings, queues, CLOCK).items()
    }


def test_there_is_a_queue_for_each_kind_of_work_and_for_each_universe() -> None:
    assert set(QUEUES) == {"orders", "billing", "reminders", "webhooks", *UNIVERSES}


@pytest.mark.parametrize("universe", UNIVERSES)
def test_a_service_is_converged_on_its_universes_queue_in_its_drivers_lane(universe: str) -> None:
    place = driver_place(universe, "metal")
    assert (place.queue, place.lane) == (universe, "driver:metal")


def test_queue_orders_needs_neither_a_gateway_nor_drivers() -> None:
    assert names(configured(), "orders") == {"orders": ["price"]}


def test_queue_billing_needs_a_gateway_and_no_drivers() -> None:
    assert names(configured(gateway_url=INSTANT), "billing") == {"billing": BILLING}


def test_queue_reminders_needs_a_mail_server_and_links_only() -> None:
    assert names(configured(**MAIL), "reminders") == {"reminders": ["remind", "tell", "send_link"]}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_a_handler_wherever_it_runs(step: str) -> None:
    settings = configured(gateway_url=INSTANT, driver_urls={"web": INSTANT}, **MAIL)
    for queue in STEPS[step].queues:
        assert step in names(settings, queue)[queue]


def test_a_step_without_a_handler_is_an_error_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = StepKind("forgotten", ("orders",), "orders")
    monkeypatch.setitem(STEPS, "forgotten", forgotten)
    with pytest.raises(RuntimeError, match="without a handler on orders: forgotten"):
        handlers(configured(), ["orders"], CLOCK)


def test_a_step_of_a_guarded_lane_is_guarded() -> None:
    assert {step.lane for step in STEPS.values() if step.is_guarded} == set(GUARDED_LANES)


def test_a_step_that_runs_in_its_drivers_lane_has_no_place_of_its_own() -> None:
    with pytest.raises(ValueError, match="converge has no place"):
        _ = STEPS["converge"].place


@pytest.mark.parametrize("universe", UNIVERSES)
def test_provisioning_needs_drivers_and_no_gateway(universe: str) -> None:
    settings = configured(driver_urls={"web": INSTANT})
    assert names(settings, universe) == {universe: ["converge", "reconcile", "by_hand"]}


def test_one_process_may_work_on_all_queues() -> None:
    settings = configured(gateway_url=INSTANT, driver_urls={"web": INSTANT}, **MAIL)
    assert set(names(settings, *QUEUES)) == set(QUEUES)


@pytest.mark.parametrize(
    ("queue", "variable"), [("billing", "AUTORENEW_GATEWAY_URL"), ("web", "AUTORENEW_DRIVER_URLS")]
)
def test_missing_setting_is_one_line_that_names_the_variable(queue: str, variable: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable} is not set") as refused:
        handlers(configured(), [queue], CLOCK)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("missing", MAIL)
def test_every_setting_of_reminders_is_needed(missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^AUTORENEW_{missing.upper()} is not set"):
        handlers(configured(**MAIL | {missing: None}), ["reminders"], CLOCK)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("smtp_url", "smtp://"),
        ("smtp_url", "smtp://mail.example.com/path"),
        ("smtp_url", "smtp://user:hunter2@mail.example.com"),  # in the clear
        ("link_secret", "hunter2"),  # too short
        ("link_base_url", "https://"),
        ("link_base_url", "https://my.example.com?hunter2"),
    ],
)
def test_wrong_setting_of_reminders_is_a_one_line_error(field: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        handlers(configured(**MAIL | {field: value}), ["reminders"], CLOCK)
    assert "\n" not in str(refused.value)
    if field != "link_base_url":  # which is no secret
        assert "hunter2" not in str(refused.value)


def test_mail_server_on_an_internal_host_may_have_a_password() -> None:
    mail = MAIL | {"smtp_url": "smtp://user:hunter2@mail", "internal_hosts": ["mail"]}
    assert names(configured(**mail), "reminders") == {"reminders": ["remind", "tell", "send_link"]}


def test_queue_named_twice_is_worked_on_once() -> None:
    assert check_queues(["web", "orders", "web"]) == ["web", "orders"]
    assert check_queues(["events", "webhooks"]) == ["webhooks"]


@pytest.mark.parametrize("queues", [[], ["nonsense"], ["orders", "nonsense"], [""], ["Orders"]])
def test_a_queue_that_does_not_exist_is_one_clear_line(queues: list[str]) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"there are orders, billing, reminders, webhooks, web,.* and events",
    ) as refused:
        check_queues(queues)
    assert "\n" not in str(refused.value)


def test_what_answers_at_once_is_called_inline() -> None:
    settings = configured(
        gateway_url=INSTANT,
        driver_urls={"web": INSTANT, "cloud": "http://c"},
        **MAIL | {"smtp_url": INSTANT},
    )
    chosen = handlers(settings, ["billing", "reminders", "web"], CLOCK)
    outside = [*chosen["billing"][:2], *chosen["reminders"]]
    assert [handler.name for handler in outside] == [
        "charge",
        "refund",
        "remind",
        "tell",
        "send_link",
    ]
    assert all(handler.immediate for handler in outside)  # type: ignore[union-attr]
    # One driver that does not is enough for a batch to be called on the event loop.
    assert not chosen["web"][0].immediate  # type: ignore[union-attr]


def test_actor_hands_its_message_to_the_runtime() -> None:
    # Given a broker, and a runtime that keeps what it is asked for
    class Kept:
        def __init__(self) -> None:
            self.asked: list[tuple[str, str, Any, Any, int]] = []

        def handle(self, handler: Any, queue: str, batches: Any, lane: Any, size: int) -> None:
            self.asked.append((handler.name, queue, batches, lane, size))

    broker, kept = StubBroker(middleware=[]), Kept()
    settings = configured(gateway_url=INSTANT)
    add_actors(broker, handlers(settings, ["billing"], CLOCK), lambda _: kept)  # type: ignore[arg-type,return-value]
    # Then there is an actor for each step, named by its queue, and it decides nothing itself.
    assert set(broker.actors) == {f"billing.{name}" for name in BILLING}
    broker.actors["billing.charge"](["a"], lane="gateway", size=7)
    # A relay of the release before names no lane.
    broker.actors["billing.refund"](["b"])
    assert kept.asked == [
        ("charge", "billing", ["a"], "gateway", 7),
        ("refund", "billing", ["b"], None, 1),
    ]
    broker.close()
