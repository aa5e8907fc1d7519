"""Whatever happens to a service, in whatever order: something is next for it, or under way."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.rules.facts import Cycle, Service
from schemas.rules.lifecycle import Step, due_notices, next_step
from schemas.rules.notices import DEARER
from schemas.rules.policies import DEFAULT_POLICY, Policy
from schemas.values import RenewalMode, ResourceState, ServiceState
from tests.unit.test_lifecycle import NO_GRACE, a_service, on

POLICIES = [
    DEFAULT_POLICY,
    NO_GRACE,
    replace(DEFAULT_POLICY, code="short", reminders=(2,), reminders_for=(), charges=(-1,)),
    replace(DEFAULT_POLICY, code="late", charges=(2, 4), suspend=10, notice=0),
    replace(DEFAULT_POLICY, code="early", reminders=(45,), reminders_for=(), charges=(-20,)),
    replace(NO_GRACE, code="same day", charges=(0,), notice=0),
]


@dataclass
class Walk:
    """A service to which things happen."""

    service: Service
    policy: Policy
    now: datetime
    ended: bool = False

    def step(self) -> Any:
        return next_step(self.service, self.policy, self.now)

    @property
    def is_under_way(self) -> bool:
        """Somebody else has it in hand, whose end decides anew: a charge, an e-mail, or the
        infrastructure."""
        service, cycle = self.service, self.service.cycle
        written = any(at is None and n not in cycle.refused for n, at in cycle.notices.items())
        return cycle.charging or written or service.desired != _desired_of(service.state)

    def change(self, **facts: Any) -> None:
        self.service = replace(self.service, **facts)

    def happen(self, **facts: Any) -> None:
        self.change(cycle=replace(self.service.cycle, **facts))

    # What the fleet does.

    def go_on(self, choice: int) -> None:
        """Do what is next, when it is due."""
        next_ = self.step()
        if next_ is None:
            return
        self.now = max(self.now, next_.at)
        cycle = self.service.cycle
        match next_.step:
            case Step.REMIND:
                due = due_notices(self.service, self.policy, self.now)
                self.happen(notices={**cycle.notices, **dict.fromkeys(due)})
            case Step.REQUEST if choice == 0 and cycle.announced_at is not None:
                self.happen(dearer=cycle.dearer + 1, dearer_at=self.now, requested=False)
            case Step.REQUEST | Step.CHARGE:
                self.happen(
                    requested=True, charging=True, method_changed=False, basis_changed=False
                )
            case Step.WITHDRAW:
                self.happen(requested=False, basis_changed=False, method_changed=False)
            case Step.SUSPEND:
                self.change(desired=ResourceState.SUSPENDED)
            case Step.TERMINATE:
                self.change(desired=ResourceState.ABSENT)
                self.ended = True

    def write(self, choice: int) -> None:
        """An e-mail is sent, or refused for its recipient."""
        cycle = self.service.cycle
        waiting = [n for n, at in cycle.notices.items() if at is None and n not in cycle.refused]
        if not waiting:
            return
        now = dict.fromkeys(waiting, self.now)
        if choice % 3 == 0:
            self.happen(refused={**cycle.refused, **now})
            return
        rose = any(notice.kind is DEARER for notice in waiting)
        told = {} if self.service.mode is RenewalMode.STOP and not rose else {
            "announced_at": self.now, "raised_at": self.now if rose else cycle.raised_at,
        }  # fmt: skip
        self.happen(notices={**cycle.notices, **now}, **told)

    def decide_charge(self, choice: int) -> None:
        service, cycle = self.service, self.service.cycle
        if not cycle.charging:
            return
        if choice % 3:
            self.happen(
                charging=False, declines=cycle.declines + 1, last_declined_at=self.now,
                declined_at=cycle.declined_at or self.now, asked_at=None,
            )  # fmt: skip
            return
        began_at = service.expires_at
        while (expires_at := service.day(30)) <= self.now:
            service = replace(service, expires_at=expires_at)
        self.change(
            cycle=Cycle(), began_at=began_at, expires_at=expires_at, desired=ResourceState.ACTIVE
        )

    def converge(self, _: int) -> None:
        if self.service.desired is ResourceState.SUSPENDED:
            if self.service.state is not ServiceState.SUSPENDED:
                self.change(state=ServiceState.SUSPENDED, suspended_at=self.now)
        elif self.service.desired is ResourceState.ACTIVE:
            self.change(state=ServiceState.ACTIVE, suspended_at=None)

    # What customers and operators do.

    def click_mode(self, choice: int) -> None:
        mode = list(RenewalMode)[choice % 3]
        if mode is self.service.mode:
            return
        self.change(mode=mode, mode_changed_at=self.now)
        if mode is not RenewalMode.AUTOMATIC:
            self.happen(asked_at=None)

    def ask(self, _: int) -> None:
        if self.service.missing_contract is None:
            self.happen(asked_at=self.now)

    def change_contract(self, choice: int) -> None:
        self.change(missing_contract=None if choice % 2 else 3)

    def change_method(self, choice: int) -> None:
        if self.service.cycle.requested:
            self.happen(method_changed=choice % 2 == 0, basis_changed=choice % 3 == 0)

    def release(self, _: int) -> None:
        """A person gives up an e-mail that was never written: its notices are claimed anew."""
        cycle = self.service.cycle
        said = {n: at for n, at in cycle.notices.items() if at or n in cycle.refused}
        self.happen(notices=said)

    def wait(self, days: int) -> None:
        self.now += timedelta(days=days)


def _desired_of(state: ServiceState) -> ResourceState:
    suspended = state is ServiceState.SUSPENDED
    return ResourceState.SUSPENDED if suspended else ResourceState.ACTIVE


EVENTS: list[Callable[[Walk, int], None]] = [
    Walk.go_on, Walk.write, Walk.decide_charge, Walk.converge, Walk.click_mode, Walk.ask,
    Walk.change_contract, Walk.change_method, Walk.release, Walk.wait,
]  # fmt: skip
# Most of the time the fleet does its work.
events = st.tuples(
    st.sampled_from([*EVENTS, *[Walk.go_on] * 12, *[Walk.write] * 6, *[Walk.decide_charge] * 4]),
    st.integers(0, 8),
)


@given(
    policy=st.sampled_from(POLICIES),
    mode=st.sampled_from(RenewalMode),
    months=st.sampled_from([1, 12]),
    happened=st.lists(events, max_size=40),
)
# Stopped, and asked for all the same, at more than was announced.
@example(
    policy=DEFAULT_POLICY,
    mode=RenewalMode.AUTOMATIC,
    months=1,
    happened=[
        (Walk.go_on, 1),
        (Walk.write, 1),
        (Walk.click_mode, 2),
        (Walk.ask, 0),
        (Walk.go_on, 0),
        (Walk.go_on, 0),
        (Walk.write, 1),
        (Walk.go_on, 0),
        (Walk.write, 1),
    ],
)
@settings(max_examples=500, deadline=None)
def test_a_service_that_nobody_has_in_hand_always_has_a_next_step(
    policy: Policy, mode: RenewalMode, months: int, happened: list[Any]
) -> None:
    walk = Walk(a_service(mode, months=months), policy, on(-31 * months, 12))
    for event, choice in happened:
        event(walk, choice)
        if walk.ended:
            assert walk.step() is None
            return
        assert walk.is_under_way or walk.step() is not None, event.__name__
