"""How the far side misbehaves: rules, drawn by key, so that a run can be repeated."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

KINDS = (
    "decline", "refuse", "forbid", "in_progress", "busy", "maintenance", "error", "hang_before",
    "hang_after", "late", "slow", "duplicate",
)  # fmt: skip
# These are answers: every try of a key gets the same one. The others are accidents: by default
# they happen to the first try of a key only.
ANSWERS = ("decline", "refuse", "forbid")
# What only one of the far sides can do.
ONLY = {"decline": "gateway", "forbid": "infrastructure", "in_progress": "infrastructure"}
REASONS = {"decline": "insufficient_funds", "refuse": "out_of_stock"}
TARGETS = {
    "gateway": ("charge", "refund"),
    "infrastructure": ("create", "suspend", "resume", "extend", "terminate"),
}


class Rule:
    """One way to misbehave.

    Args:
        fault: one of :data:`KINDS`.
        target: ``gateway``, ``infrastructure`` or ``*``.
        operation: one of a target's in :data:`TARGETS`, or ``*``.
        customer, plan: globs.
        configuration: globs by option; all of them have to match.
        rate: share of keys it happens to, from 0 to 1; drawn from the seed, the rule and the key.
        times: how many tries of one key it happens to; by default 1, for an answer all of them.
        seconds: how long a slow or hanging call takes, or what is in progress; of a far side that
            is busy or in maintenance, what it says in Retry-After.
        reason: the code that a decline or a refusal gives. What is in progress ends with it
            instead of being done.
        words: what a refusal says to people.

    Raises:
        ValueError: an argument is wrong; the message names it.
    """

    def __init__(
        self,
        fault: str,
        *,
        target: str = "*",
        operation: str = "*",
        customer: str = "*",
        plan: str = "*",
        configuration: dict[str, str] | None = None,
        rate: float = 1.0,
        times: int | None = None,
        seconds: float = 30.0,
        reason: str | None = None,
        words: str | None = None,
    ) -> None:
        _check("fault", fault, KINDS)
        _check("target", target, (*TARGETS, "*"))
        if target not in (ONLY.get(fault, target), "*"):
            raise ValueError(f"fault {fault!r} is of target {ONLY[fault]!r}")
        operations = [o for name, own in TARGETS.items() if target in (name, "*") for o in own]
        _check("operation", operation, (*operations, "*"))
        texts: dict[str, Any] = {"customer": customer, "plan": plan}
        texts |= {n: t for n, t in (("reason", reason), ("words", words)) if t is not None}
        if not isinstance(configuration, dict | None):
            raise ValueError(f"configuration {configuration!r} is not an object")
        texts |= {f"configuration.{name}": glob for name, glob in (configuration or {}).items()}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise ValueError(f"{name} {text!r} is not a text")
        if type(rate) not in (int, float) or not 0 <= rate <= 1:
            raise ValueError(f"rate {rate!r} is not between 0 and 1")
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds {seconds!r} is not a number from 0 on")
        if times is not None and (type(times) is not int or times < 1):
            raise ValueError(f"times {times!r} is not a whole number from 1 on")
        self.fault, self.target, self.operation = fault, target, operation
        self.customer, self.plan, self.rate = customer, plan, rate
        self.times = times if times is not None else (10**9 if fault in ANSWERS else 1)
        self.seconds = seconds
        self.configuration = configuration or {}
        self.reason = reason or REASONS.get(fault)
        self.words = words
        self._hits: Counter[str] = Counter()

    def strikes(
        self, seed: int, number: int, target: str, operation: str, key: str, body: dict[str, Any]
    ) -> bool:
        """Whether this try is struck; counts it if so."""
        applies = (
            self.target in (target, "*")
            and ONLY.get(self.fault, target) == target
            and self.operation in (operation, "*")
            and fnmatchcase(str(body.get("customer", "")), self.customer)
            and fnmatchcase(str(body.get("plan", "")), self.plan)
            and self._matches(body.get("configuration"))
        )
        if not applies or self._hits[key] >= self.times:
            return False
        digest = hashlib.blake2b(f"{seed}/{number}/{key}".encode(), digest_size=8).digest()
        if int.from_bytes(digest) / 2**64 >= self.rate:
            return False
        self._hits[key] += 1
        return True

    def _matches(self, configuration: object) -> bool:
        if not self.configuration:
            return True
        return isinstance(configuration, dict) and all(
            name in configuration and fnmatchcase(str(configuration[name]), glob)
            for name, glob in self.configuration.items()
        )


def _check(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")


class Faults:
    """The rules in force.

    Args:
        seed: the same rules and the same seed strike the same keys.
    """

    def __init__(self, rules: list[dict[str, Any]] | None = None, seed: int = 1) -> None:
        self._seed = seed
        self.rules: list[Rule] = []
        for rule in rules or []:
            self.add(rule)

    def add(self, rule: dict[str, Any]) -> None:
        """Add a rule, given as the arguments of :class:`Rule`.

        Raises:
            ValueError, TypeError: it is not a rule.
        """
        if not isinstance(rule, dict):
            raise ValueError("a rule is an object")
        self.rules.append(Rule(**rule))

    def clear(self) -> None:
        self.rules.clear()

    def draw(self, target: str, operation: str, key: str, body: dict[str, Any]) -> Rule | None:
        """The first rule that strikes this try; None if none does."""
        for number, rule in enumerate(self.rules):
            if rule.strikes(self._seed, number, target, operation, key, body):
                return rule
        return None
