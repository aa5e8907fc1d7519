"""What a person did instead of a task that has failed, written down as if a far side had done it.

A far side that says whatever the person says stands in for the real one; all else, the books, the
history and what is next, is as after its own answer. Nothing is called.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, text

from producers import history, ledger
from producers.history import Event
from producers.ledger import Claim, ClaimedTask
from producers.renewals import next_steps
from producers.steps import BILLING, CHARGE, CONVERGE, GATEWAY, REFUND
from schemas.books import BookEntry, ResourceEntry
from schemas.catalogue.store import CatalogueCache
from schemas.clock import Clock
from schemas.errors import AutorenewError
from schemas.values import ResourceState, ServiceState
from workers.billing.charges.attempt import ChargePolicy
from workers.billing.charges.charge import ChargeHandler
from workers.billing.charges.refund import RefundHandler
from workers.billing.gateways.port import Charge, GatewayAnswer, GatewayState, Refund
from workers.outside.calls import run_now
from workers.provisioning.converge import ConvergeHandler
from workers.provisioning.drivers.port import DriverAnswer, DriverState, Operation, Resource
from workers.provisioning.operations import becomes
from workers.runtime.retries import RetryPolicy

# A service needs two operations at most to be as it should be, such as resume and extend.
MOST_OPERATIONS = 5
REASON = "by_hand"
# Nothing is called, so nothing is tried again.
_ONCE = RetryPolicy(base=1, cap=1, attempts=1)

P = TypeVar("P")


class CannotTell(AutorenewError):
    """That was not done by hand, or it does not end the task."""

    code = "cannot_tell"


class _Everywhere(Mapping[str, P], Generic[P]):
    """One far side under every name: that of the failed task may not be configured any more."""

    def __init__(self, port: P) -> None:
        self._port = port

    def __getitem__(self, _name: str) -> P:
        return self._port

    def __iter__(self) -> Iterator[str]:
        return iter(("by hand",))

    def __len__(self) -> int:
        return 1


class _Person:
    """A driver that has done whatever is asked for.

    Args:
        desired: what its service should be.
    """

    immediate = True

    def __init__(self, desired: ResourceState) -> None:
        self._desired = desired

    async def perform(self, operation: Operation) -> DriverAnswer:
        state = becomes(operation.kind, self._desired)
        is_gone = state is ResourceState.ABSENT
        resource = Resource(
            None if is_gone else operation.resource_id,
            state,
            operation.generation,
            None if is_gone else operation.paid_until,
        )
        return DriverAnswer(DriverState.DONE, resource, REASON)

    async def ask(self, operation: Operation) -> DriverAnswer:
        return await self.perform(operation)

    async def resources(self, after: str | None) -> Sequence[ResourceEntry]:
        return []

    async def close(self) -> None:
        pass


class _Cashier:
    """A gateway that answers what a person found out, or did."""

    immediate = True

    def __init__(self, state: GatewayState, reference: str | None) -> None:
        self._answer = GatewayAnswer(state, reference, REASON)

    async def perform(self, operation: Charge | Refund) -> GatewayAnswer:
        return self._answer

    async def ask(self, operation: Charge | Refund) -> GatewayAnswer:
        return self._answer

    async def book(self, after: str | None) -> Sequence[BookEntry]:
        return []

    async def close(self) -> None:
        pass


_SERVICE = text("SELECT universe, state, desired FROM services WHERE id = :id")
_FAILED = text("""
    SELECT 1 FROM tasks WHERE name = :name AND subject = :id AND state = 'failed' FOR UPDATE
""")
_DROP = text("DELETE FROM tasks WHERE name = :name AND subject = :id")
_BY_HAND = text("UPDATE refunds SET by_hand = true WHERE key = :key")


def done(
    tx: Connection, service: uuid.UUID, because: str | None, catalogue: CatalogueCache, clock: Clock
) -> None:
    """A person did at the infrastructure what a service needs: it is as it should be.

    To be called as the database role ``provisioning``.

    Args:
        because: kept in the history.

    Raises:
        CannotTell: it has no failed task, or is not delivered: without a resource there is nothing
            to be as it should be.
    """
    next_steps.lock(tx, [service])
    _hold(tx, CONVERGE, service)
    row = tx.execute(_SERVICE, {"id": service}).one()
    if row.state == ServiceState.DELIVERING and row.desired != ResourceState.ABSENT:
        raise CannotTell(f"{service} is not delivered: retry it, or `autorenew failed cancel`")
    driver = _Everywhere(_Person(ResourceState(row.desired)))
    handler = ConvergeHandler(driver, catalogue, clock, policy=_ONCE)
    claim = _claim(CONVERGE, row.universe, service)
    for _ in range(MOST_OPERATIONS):
        calls, _outcome = handler.begin(tx, claim)
        if not calls:
            break
        handler.record(tx, claim, _answers(handler, calls))
    _end(tx, CONVERGE, service, {"because": because})


def settle_refund(
    tx: Connection,
    subject: uuid.UUID,
    reference: str,
    because: str | None,
    catalogue: CatalogueCache,
    clock: Clock,
    *,
    in_doubt: bool = False,
) -> None:
    """A person paid back what a refund owes. To be called as the database role ``billing``.

    Args:
        subject: the service, or the payment request of a renewal, that it is given back for.
        reference: of that payment, such as a bank transfer's.
        in_doubt: also if the gateway may have made a refund that was begun: the person has looked.

    Raises:
        CannotTell: there is no such failed task, nothing is owed any more, or it is in doubt.
    """
    cashier = _Everywhere(_Cashier(GatewayState.SUCCEEDED, reference))
    handler = RefundHandler(cashier, catalogue, clock, policy=_ONCE)
    claim = _claim(REFUND, BILLING, subject)
    calls, _ = handler.begin(tx, claim)
    _hold(tx, REFUND, subject)
    if not calls:
        raise CannotTell(f"nothing is owed for {subject} any more: retry it")
    ((_, call),) = calls
    if call.in_doubt and not in_doubt:
        raise CannotTell(
            f"the gateway may have refunded {subject}: retry it, so that the gateway is asked; or"
            " look there, and say --in-doubt"
        )
    handler.record(tx, claim, _answers(handler, calls))
    tx.execute(_BY_HAND, {"key": call.refund.key})
    _end(tx, REFUND, subject, {"reference": reference, "because": because})


def settle_charge(
    tx: Connection,
    request: uuid.UUID,
    reference: str | None,
    because: str | None,
    catalogue: CatalogueCache,
    clock: Clock,
    order_delays: Sequence[float],
) -> None:
    """A person found out at the gateway how a charge that is in doubt has ended. To be called as
    the database role ``billing``.

    Args:
        reference: the gateway's, of what was taken; None: nothing was taken.
        order_delays: see :class:`ChargePolicy`.

    Raises:
        CannotTell: there is no such failed task, or nothing is in doubt.
    """
    state = GatewayState.DECLINED if reference is None else GatewayState.SUCCEEDED
    policy = ChargePolicy(order_delays=order_delays, calls=_ONCE)
    handler = ChargeHandler(
        _Everywhere(_Cashier(state, reference)), catalogue, clock, policy=policy
    )
    claim = _claim(CHARGE, BILLING, request)
    calls, _ = handler.begin(tx, claim)
    _hold(tx, CHARGE, request)
    if not calls or not calls[0][1].in_doubt:
        raise CannotTell(f"no charge of {request} is in doubt: retry it, or cancel it")
    outcome = handler.record(tx, claim, _answers(handler, calls))
    if outcome.retries:  # an order's: it is charged again, under another key
        ledger.enqueue(tx, CHARGE, [(request, GATEWAY)])
    _end(
        tx, CHARGE, request, {"reference": reference, "because": because},
        drop=not outcome.retries,
    )  # fmt: skip


def writes_done(
    catalogue: CatalogueCache, clock: Clock
) -> Callable[[Connection, str, uuid.UUID, str | None, Mapping[str, Any]], None]:
    """What writes down that a service is as it should be; see :func:`done`."""

    def write(
        tx: Connection, name: str, subject: uuid.UUID, because: str | None, _: Mapping[str, Any]
    ) -> None:
        if name != CONVERGE:
            raise CannotTell(f"a failed {name} is not told as done by hand")
        done(tx, subject, because, catalogue, clock)

    return write


def writes_settled(
    catalogue: CatalogueCache, clock: Clock, order_delays: Sequence[float]
) -> Callable[[Connection, str, uuid.UUID, str | None, Mapping[str, Any]], None]:
    """What writes down how a refund or a charge has ended; see :func:`settle`."""

    def write(
        tx: Connection, name: str, subject: uuid.UUID, because: str | None, said: Mapping[str, Any]
    ) -> None:
        settle(
            tx, name, subject, because, catalogue, clock, order_delays,
            reference=said.get("reference"), in_doubt=bool(said.get("in_doubt")),
        )  # fmt: skip

    return write


def settle(
    tx: Connection,
    name: str,
    subject: uuid.UUID,
    because: str | None,
    catalogue: CatalogueCache,
    clock: Clock,
    order_delays: Sequence[float],
    *,
    reference: str | None,
    in_doubt: bool,
) -> None:
    """How a failed ``refund`` or ``charge`` has ended; see the functions for each.

    Args:
        name: of the step.
        reference: None: a charge that was not taken.

    Raises:
        CannotTell: it is another step, a refund has no reference, or as each of them.
    """
    if name == REFUND:
        if reference is None:
            raise CannotTell(f"{subject} is a refund: name the reference of its payment")
        settle_refund(tx, subject, reference, because, catalogue, clock, in_doubt=in_doubt)
    elif name == CHARGE:
        settle_charge(tx, subject, reference, because, catalogue, clock, order_delays)
    else:
        raise CannotTell(f"a failed {name} is not settled by hand")


def _claim(name: str, queue: str, subject: uuid.UUID) -> Claim:
    """Under no lease: nobody works on what has failed."""
    return Claim(name, queue, uuid.uuid4(), (ClaimedTask(subject, 0, 0, 0.0),))


def _answers(handler: Any, calls: Sequence[tuple[uuid.UUID, Any]]) -> list[Any]:
    return [(subject, call, run_now(handler.call(call))) for subject, call in calls]


def _hold(tx: Connection, name: str, subject: uuid.UUID) -> None:
    if tx.execute(_FAILED, {"name": name, "id": subject}).first() is None:
        raise CannotTell(f"{subject} has no failed task {name}; see `autorenew failed list`")


def _end(
    tx: Connection, name: str, subject: uuid.UUID, detail: dict[str, Any], *, drop: bool = True
) -> None:
    if drop:
        tx.execute(_DROP, {"name": name, "id": subject})
    history.record(tx, [Event(subject, "task.done_by_hand", {"task": name, **detail})])
