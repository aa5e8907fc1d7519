"""Two workers, and requests that the server gets when nobody waits for them any more."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.values import ResourceState
from tests.integration.powerdns.sites import Site, driver_of, is_publishing, served
from tests.support.between import Between, Fate
from tests.support.powerdns import PowerDns
from workers.conformance.drivers import whole
from workers.conformance.waiting import Waiting
from workers.provisioning.drivers.port import DriverState, OperationKind

CREATE, SUSPEND, RESUME, EXTEND, TERMINATE = OperationKind
ABSENT, ACTIVE, SUSPENDED = ResourceState


@pytest.fixture
def late(server: PowerDns) -> Iterator[Between]:
    def fate(method: str, path: str) -> Fate:
        return Fate.IS_LATE if is_publishing(method, path) else Fate.PASSES

    with Between(server.url, fate) as between:
        yield between


def test_suspension_that_arrives_after_the_resumption_changes_nothing(
    site: Site, server: PowerDns, late: Between
) -> None:
    # Given a suspension that is still on its way when its worker has given up
    site.does(CREATE, 1)
    with Waiting(driver_of(server, url=late.url, seconds=1.5)) as slow:
        assert site.on(slow).does(SUSPEND, 2).state is DriverState.UNKNOWN
    # When the customer has paid, the zone is resumed, and then it arrives
    assert site.does(RESUME, 3).state is DriverState.DONE
    assert late.deliver() > 0
    # Then the zone is as it was resumed.
    assert site.service.resource.generation == 3
    assert site.service.state is ACTIVE
    assert site.ask() == ["192.0.2.10"]


def test_suspension_that_arrives_in_time_is_found_and_not_repeated(
    site: Site, server: PowerDns, late: Between
) -> None:
    site.does(CREATE, 1)
    suspend = site.service.operation(SUSPEND, 2)
    with Waiting(driver_of(server, url=late.url, seconds=1.5)) as slow:
        assert slow.perform(suspend).state is DriverState.UNKNOWN
    assert late.deliver() > 0
    serial = site.ask("SOA")
    assert site.service.state is SUSPENDED
    assert site.service.perform(suspend).state is DriverState.DONE
    assert site.ask("SOA") == serial
    site.does(RESUME, 3)
    assert site.ask() == ["192.0.2.10"]


def test_content_that_arrives_after_the_termination_is_not_served(
    site: Site, server: PowerDns, late: Between
) -> None:
    with Waiting(driver_of(server, url=late.url, seconds=1.5)) as slow:
        assert site.on(slow).does(CREATE, 1).state is DriverState.UNKNOWN
    assert site.does(TERMINATE, 2).state is DriverState.DONE
    assert late.deliver() > 0
    assert site.service.state is ABSENT
    assert site.ask() == "REFUSED"


def test_zone_that_is_made_after_the_termination_is_empty_and_can_be_ended(
    site: Site, server: PowerDns, driver: Waiting
) -> None:
    def fate(method: str, path: str) -> Fate:
        return Fate.IS_LATE if method == "POST" else Fate.PASSES

    # Given a create whose zone is made after the service was terminated
    site.does(TERMINATE, 1)  # the registry exists
    with Between(server.url, fate) as between:
        with Waiting(driver_of(server, url=between.url, seconds=1.5)) as slow:
            create = site.on(slow).operation(CREATE, 2)
            assert slow.perform(create).state is DriverState.UNKNOWN
        assert site.does(TERMINATE, 3).state is DriverState.DONE
        assert between.deliver() > 0
    # Then nothing of it is served, the audit sees it, and it is no service.
    assert site.ask() == site.ask("CNAME", "www") or site.ask() == []
    assert site.service.state is ABSENT
    assert site.domain in [e.resource_id for e in whole(driver)]
    # And whoever comes next takes it away: the create that is stale, or another termination.
    assert site.service.perform(create).state is DriverState.STALE
    assert site.domain not in server.zones()


def test_of_many_at_once_the_newest_generation_remains(
    site: Site, server: PowerDns, driver: Waiting
) -> None:
    site.does(CREATE, 1)
    kinds = (SUSPEND, RESUME, EXTEND)
    operations = [site.service.operation(kinds[g % 3], g) for g in range(2, 22)]

    async def at_once() -> list[Any]:
        return await asyncio.gather(*(driver.port.perform(o) for o in operations))

    answers = driver.run(at_once())

    # Some were late, some found that others were quicker each time, and one was last.
    states = {answer.state for answer in answers}
    assert states <= {DriverState.DONE, DriverState.STALE, DriverState.UNKNOWN}
    done = [o for o, a in zip(operations, answers, strict=True) if a.state is DriverState.DONE]
    newest = max(done, key=lambda operation: operation.generation)
    resource = site.service.resource
    assert resource.generation == newest.generation
    assert site.ask() == (["192.0.2.99"] if resource.state is SUSPENDED else ["192.0.2.10"])
    # Whatever happened on the way, nothing of the customer's was lost.
    site.does(RESUME, 30)
    assert served(site)["www"] == [f"{site.domain}."]
    assert site.ask() == ["192.0.2.10"]
