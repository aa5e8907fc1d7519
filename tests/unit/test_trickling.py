"""Whatever part of an answer never ends, no gateway, driver or endpoint holds a call for it."""

import asyncio
import time
import uuid
from datetime import date
from ipaddress import ip_network

import pytest

from schemas.values import Money, ServiceId
from tests.unit.test_outside_http import TRICKLES, raw
from workers.billing.gateways.http import HttpGateway
from workers.billing.gateways.port import Charge, GatewayState
from workers.events.sender import Letter, Sender, WebhookState
from workers.outside.http import HttpSettings
from workers.provisioning.drivers.http import HttpDriver
from workers.provisioning.drivers.port import DriverState, Operation, OperationKind

SECONDS = 1.0
CHARGE = Charge("key", Money(100, "EUR"), "tok", "c-1")
CREATE = Operation(
    OperationKind.CREATE, "key", 1, ServiceId(uuid.uuid4()), "c-1", "plan", {}, date(2030, 1, 1)
)
LETTER_KEYS = ["whsec_" + "a" * 32]


@pytest.mark.parametrize("what", TRICKLES)
def test_what_a_far_side_trickles_leaves_a_call_in_doubt_within_its_deadline(what: str) -> None:
    async def run(url: str) -> tuple[object, ...]:
        settings = HttpSettings(url=url, seconds=SECONDS)
        gateway, driver = HttpGateway("pay", settings), HttpDriver("web", settings)
        sender = Sender(seconds=SECONDS, allowed=[ip_network("127.0.0.0/8")])
        try:
            answers = await asyncio.gather(
                gateway.perform(CHARGE),
                gateway.ask(CHARGE),
                driver.perform(CREATE),
                driver.ask(CREATE),
                sender.send(Letter("shop", url, "event", b"{}", LETTER_KEYS)),
            )
        finally:
            for port in (gateway, driver, sender):
                await port.close()
        return tuple(answer.state for answer in answers)

    with raw(*TRICKLES[what], every=0.02) as url:
        started = time.monotonic()
        states = asyncio.run(run(url))
        assert time.monotonic() - started < SECONDS + 10
    assert states == (
        GatewayState.UNKNOWN, GatewayState.UNKNOWN, DriverState.UNKNOWN, DriverState.UNKNOWN,
        WebhookState.UNAVAILABLE,
    )  # fmt: skip
