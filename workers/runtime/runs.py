"""What is told of the runs of handlers: a line in the log, spans, and lines beside failed tasks."""

import logging
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Engine

from monitoring import tracing
from producers import correlation
from producers.correlation import Behind, distinct
from producers.ledger import Claim, Failure, Outcome, Retry
from producers.steps import REQUEST
from schemas import logs

log = logging.getLogger(__name__)

D = TypeVar("D", Retry, Failure)

MOST_NAMED = 3
"""A run of so many tasks says which they are, and what they are about: so many of each."""
FORGOTTEN = frozenset({REQUEST})
"""Steps whose subject is about nothing any more once they are done: what is to be asked for
together is a payment request then."""
MOST_FAILURES = 5
"""So many failures of a run have a line each."""


@dataclass(slots=True)
class Run:
    """One handler run, from the claim of its tasks to the end of the last of them.

    Attributes:
        behind: what is behind its tasks, as far as it is needed.
        failures: those that wait for a person now.
    """

    claim: Claim
    behind: Mapping[uuid.UUID, Behind]
    started: float = field(default_factory=time.monotonic)
    started_ns: int = field(default_factory=time.time_ns)
    done: int = 0
    again: int = 0
    retried: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def traces(self) -> dict[uuid.UUID, list[str]]:
        """The contexts of its tasks that are in a trace: of a renewal's payment request or e-mail
        as many as it is about renewals."""
        return {
            subject: list(found.traces) for subject, found in self.behind.items() if found.traces
        }

    @property
    def is_named(self) -> bool:
        """Whether its line says which tasks they were."""
        return len(self.claim.tasks) <= MOST_NAMED

    def add(self, outcome: Outcome, subjects: Collection[uuid.UUID] | None = None) -> None:
        """Count how tasks ended; of a run among several, only its own ``subjects``."""

        def mine(some: Iterable[uuid.UUID]) -> int:
            return sum(1 for one in some if subjects is None or one in subjects)

        self.done += mine(outcome.done)
        self.again += mine(outcome.again)
        self.retried += mine(retry.subject for retry in outcome.retries)
        self.failures += [f for f in outcome.failures if subjects is None or f.subject in subjects]

    def end(self) -> None:
        """Tell of it, once its last task is recorded."""
        ended_ns = time.time_ns()
        claim, size = self.claim, len(self.claim.tasks)
        logs.say(
            log,
            f"{claim.queue}.{claim.name}",
            batch=str(claim.token),
            lane=claim.lane or None,
            tasks=size,
            done=self.done or None,
            again=self.again or None,
            retried=self.retried or None,
            failed=len(self.failures) or None,
            seconds=round(time.monotonic() - self.started, 4),
            waited=round(max(0.0, *(task.waited for task in claim.tasks), 0.0), 4),
            **(self._named() if self.is_named else {}),
        )
        for failure in self.failures[:MOST_FAILURES]:
            self._tell(failure)
        if (more := len(self.failures) - MOST_FAILURES) > 0:
            logs.say(log, f"{claim.name}: {more} more have failed", level=logging.WARNING)
        if tracing.is_on():
            self._record_spans(ended_ns)

    def _named(self) -> dict[str, Any]:
        """Which its tasks are, and what they are about."""
        about = [self.behind[t.subject] for t in self.claim.tasks if t.subject in self.behind]
        orders = distinct(order for one in about for order in one.orders)
        traces = [trace for one in about for trace in one.traces]
        return {
            "subjects": _some(task.subject for task in self.claim.tasks),
            "orders": _some(order.key for order in orders),
            "upstreams": _some(sorted({order.upstream for order in orders})),
            "services": _some(service for one in about for service in one.services),
            "requests": _some(request for one in about for request in one.requests),
            "trace": _trace_id(traces[0]) if traces and len(self.claim.tasks) == 1 else None,
        }

    def _tell(self, failure: Failure) -> None:
        about = self.behind.get(failure.subject, Behind())
        order = next(iter(about.orders), None)
        logs.say(
            log,
            f"{self.claim.name} has failed, and waits for a person: {_why(failure)}",
            level=logging.WARNING,
            subject=str(failure.subject),
            reason=failure.reason,
            code=failure.code,
            order=order.key if order else None,
            upstream=order.upstream if order else None,
            services=_some(about.services),
        )

    def _record_spans(self, ended_ns: int) -> None:
        """A span of the run, linked to the orders and renewals it worked on; in the trace of each
        one of its own, so that an order is one trace however its tasks were gathered."""
        name, traces = f"{self.claim.queue}.{self.claim.name}", self.traces
        failed = {failure.subject: failure.reason for failure in self.failures}
        context, end = tracing.begin(
            f"{name} batch",
            links=distinct(trace for some in traces.values() for trace in some),
            kind="consumer",
            started=self.started_ns,
            tasks=len(self.claim.tasks),
            batch=str(self.claim.token),
        )
        waited = {task.subject: task.waited for task in self.claim.tasks}
        for subject, some in traces.items():
            about = self.behind[subject]
            for trace in some:
                tracing.record(
                    name,
                    self.started_ns,
                    ended_ns,
                    parent=trace,
                    links=[context] if context else [],
                    failed=failed.get(subject),
                    order=_some(order.key for order in about.orders),
                    request=_some(about.requests),
                    subject=str(subject),
                    batch=str(self.claim.token),
                    waited_seconds=round(max(0.0, waited.get(subject, 0.0)), 4),
                )
        end()


class Runs:
    """Begins runs, and remembers those that are under way.

    Args:
        engine: as a worker's role; asked for what is behind tasks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: dict[uuid.UUID, Run] = {}  # by the token of its claim

    def begin(self, claim: Claim) -> Run:
        """A run for a claim that holds tasks."""
        is_asked = tracing.is_on() or (claim.name in FORGOTTEN and self._is_told(claim))
        behind = correlation.look_up(self._engine, claim.subjects) if is_asked else {}
        run = self._under_way[claim.token] = Run(claim, behind)
        return run

    @staticmethod
    def _is_told(claim: Claim) -> bool:
        """Whether its line says what it was about."""
        return len(claim.tasks) <= MOST_NAMED and log.isEnabledFor(logging.INFO)

    def add(self, claims: Sequence[Claim], outcome: Outcome) -> None:
        """Count how tasks of claims ended."""
        for claim in claims:
            if (run := self._under_way.get(claim.token)) is not None:
                run.add(outcome, None if len(claims) == 1 else set(claim.subjects))

    def end(self, claim: Claim) -> None:
        """The last task of a claim is recorded, or nothing more will be; never raises."""
        run = self._under_way.pop(claim.token, None)
        if run is None:
            return
        try:
            if not run.behind and self._is_told(claim):
                run.behind = correlation.look_up(self._engine, claim.subjects)  # nobody waits
            run.end()
        except Exception:
            log.warning("a run cannot be told of", exc_info=True)


def with_lines(
    outcome: Outcome, attempts: Mapping[uuid.UUID, int], kept: Mapping[uuid.UUID, Sequence[str]]
) -> Outcome:
    """The same outcome, with the lines that are kept beside tasks that have failed.

    Args:
        attempts: of each task, before this one.
        kept: what was said while it was called.
    """

    def add(decision: D) -> D:
        number = attempts.get(decision.subject, 0) + 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        ended = f"{now} attempt {number}: {_why(decision)}"
        cut = logs.redacted(ended)[: logs.MOST_CHARACTERS]
        return replace(decision, lines=(*kept.get(decision.subject, ()), cut)[-logs.MOST_LINES :])

    return replace(
        outcome,
        retries=[add(retry) for retry in outcome.retries],
        failures=[add(failure) for failure in outcome.failures],
    )


def _why(decision: Retry | Failure) -> str:
    code = f" ({decision.code})" if decision.code and decision.code != decision.reason else ""
    words = f": {decision.error}" if decision.error else ""
    return f"{decision.reason}{code}{words}"


def _some(of: Iterable[object]) -> str | None:
    """The first few of them, without repeats; None: there are none."""
    return ",".join(map(str, distinct(of)[:MOST_NAMED])) or None


def _trace_id(traceparent: str) -> str:
    return traceparent.split("-")[1]
