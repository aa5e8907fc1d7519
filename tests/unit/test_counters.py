"""Counters are there, at 0, before anything is counted."""

from prometheus_client import REGISTRY

from producers import counters
from producers.steps import QUEUES, steps_of


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_every_outcome_of_every_step_is_there_from_the_start() -> None:
    counters.of_worker(QUEUES)

    for queue in QUEUES:
        for step in steps_of(queue):
            for outcome in ("done", "again", "retried", "failed", "put_back", "defect"):
                labels = {"queue": queue, "task": step.task, "outcome": outcome}
                assert value("autorenew_tasks_total", **labels) is not None, labels
        assert value("autorenew_refused_messages_total", queue=queue) is not None


def test_what_a_relay_a_scheduler_and_intake_count_is_there_from_the_start() -> None:
    counters.of_relay()
    counters.of_scheduler()
    counters.of_intake("amqp")

    assert value("autorenew_relay_tasks_total", queue="web") is not None
    assert value("autorenew_rescued_tasks_total", state="leased") is not None
    assert value("autorenew_swept_services_total", step="remind") is not None
    assert value("autorenew_swept_services_total", step="price") is None
    assert value("autorenew_guard_trips_total", lane="gateway", reason="silence") is not None
    assert value("autorenew_guard_trips_total", lane="destructive", reason="many") is not None
    assert value("autorenew_intake_documents_total", door="amqp", outcome="repeated") is not None
    assert value("autorenew_loop_failures_total", loop="relay", cause="broker") is not None
