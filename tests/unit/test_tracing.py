"""What spans say: no secret and no e-mail address leaves the house with one."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from monitoring import tracing
from schemas.settings import Settings
from tests.support.collector import Collector, attributes, collecting

SECRETS = ("hunter2", "tok-9f8e7d6c5b", "alice@example.com", "sk_live_abcdef")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        tracing.configure(Settings(traces_url=collector.url), "test")
        yield collector


def everything_said(span: Any) -> str:
    return " ".join([span.name, str(span.attributes), str(span.events), str(span.status)])


def test_attributes_keep_no_secret(collector: Collector) -> None:
    with tracing.span(
        "call",
        lane="driver:cloud",
        url="https://us:hunter2@far.example/a",
        said="Authorization: Bearer tok-9f8e7d6c5b for alice@example.com, api_key=sk_live_abcdef",
    ):
        pass
    collector.flush()

    (span,) = collector.spans
    assert not [secret for secret in SECRETS if secret in everything_said(span)]
    assert attributes(span)["lane"] == "driver:cloud"
    assert attributes(span)["url"] == "https://us:***@far.example/a"


def test_what_an_exception_says_keeps_no_secret(collector: Collector) -> None:
    with pytest.raises(ValueError, match="refused"), tracing.span("call"):
        raise ValueError("refused password=hunter2 of alice@example.com, token: tok-9f8e7d6c5b")
    collector.flush()

    (span,) = collector.spans
    assert "refused" in everything_said(span)
    assert not [secret for secret in SECRETS if secret in everything_said(span)]


def test_collector_that_is_away_keeps_nobody_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # it accepts, and never answers
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        tracing.configure(Settings(traces_url=url), "test", patience=0.3)
        with tracing.span("call"):
            pass
        begun = time.monotonic()
        tracing.close()
        assert time.monotonic() - begun < 3


def test_recorded_failure_keeps_no_address(collector: Collector) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    tracing.record("step", 1, 2, parent=parent, failed="no mailbox alice@example.com", order="k-1")
    collector.flush()

    (span,) = collector.spans
    assert span.status.message == "no mailbox ***"
    assert attributes(span)["order"] == "k-1"
    assert span.parent_span_id.hex() == "00f067aa0ba902b7"
