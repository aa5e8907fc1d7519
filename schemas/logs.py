"""The log of a process: one line for each thing that happened, for people or for programs.

A line says which process speaks, what it is about (see :func:`about`), and nothing secret: see
:func:`redacted`. Lines about one task are kept beside it, too, if it fails: see :func:`listening`.
"""

import json
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from schemas.shown import for_terminal

Format = Literal["auto", "text", "json"]

MOST_LINES = 20
"""Of the last lines about a task."""
MOST_CHARACTERS = 500
"""Of one of them."""

_process = "autorenew"

# Of a lost connection Dramatiq writes two lines for each attempt of each queue; our broker says
# once that it is lost, and once that it is back.
_SAID_BY_THE_BROKER = ("Consumer encountered a connection error", "Restarting consumer in")

_SECRETS = re.compile(
    r"""(?ix)
    (?P<url> \b[a-z][a-z0-9+.-]*:// [^\s/?\#@:]* : ) [^\s/?\#@]+ (?= @ )
    | (?P<scheme> \b(?:bearer|basic) \s+ ) [a-z0-9._~+/=-]{6,}
    | (?P<name> \b["']?(?:password|passwd|secret|token|api[_-]?key|authorization|cookie)["']?
        \s* [=:] \s* ["']? ) (?:(?:bearer|basic)\s+)? (?!\*\*\*) [^\s"',;&}]{3,}
    """
)
_HIDDEN = "***"


def redacted(text: str) -> str:
    """A text without the secrets that are recognised in it: passwords of URLs, tokens, and values
    of fields that are called so. What is known to be secret is never logged at all; this catches
    what others wrote, such as a far side that repeats a request in its error."""
    return _SECRETS.sub(lambda m: (m["url"] or m["scheme"] or m["name"] or "") + _HIDDEN, text)


_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)
_lines: ContextVar[deque[str] | None] = ContextVar("lines", default=None)


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Every line that is logged meanwhile, here and in what is awaited, has these fields."""
    token = _about.set({**(_about.get() or {}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


@contextmanager
def listening() -> Iterator[deque[str]]:
    """Keep what is logged meanwhile from INFO on, and every :func:`note`; the last lines of it."""
    lines: deque[str] = deque(maxlen=MOST_LINES)
    token = _lines.set(lines)
    try:
        yield lines
    finally:
        _lines.reset(token)


def note(log: logging.Logger, text: str) -> None:
    """Say a detail of the task at hand: logged at DEBUG, and kept beside the task if it fails."""
    log.debug("%s", text)
    if (lines := _lines.get()) is not None:
        lines.append(_line(text))


def say(log: logging.Logger, text: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log a line that has fields of its own; those that are None are left out."""
    log.log(level, "%s", text, extra={"fields": fields})


def _line(text: str, at: datetime | None = None) -> str:
    moment = (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{moment} {for_terminal(redacted(text))[:MOST_CHARACTERS]}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    known = {**(_about.get() or {}), **getattr(record, "fields", {})}
    return {name: value for name, value in known.items() if value is not None}


class _Keep(logging.Filter):
    """Lets every record pass, and keeps it for those who listen."""

    def filter(self, record: logging.LogRecord) -> bool:
        if (lines := _lines.get()) is not None and record.levelno >= logging.INFO:
            lines.append(_line(record.getMessage(), datetime.fromtimestamp(record.created, UTC)))
        return True


class _Text(logging.Formatter):
    """For people: fields follow the message as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(speaker)s %(name)s: %(said)s")

    def format(self, record: logging.LogRecord) -> str:
        record.speaker = f"{_process}[{os.getpid()}]"
        more = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        record.said = for_terminal(redacted(record.getMessage() + more))
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - a name of the standard library's
        return redacted(super().formatException(ei))


class _Json(logging.Formatter):
    """For programs: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        said: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "process": _process,
            "pid": os.getpid(),
            "logger": record.name,
            "message": for_terminal(redacted(record.getMessage())),
        }
        said |= {
            name: redacted(value) if isinstance(value, str) else value
            for name, value in _fields(record).items()
            if name not in said
        }
        if record.exc_info:
            said["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(said, ensure_ascii=False, default=str)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


class _Handler(logging.StreamHandler[Any]):
    pass


class _NotSaidByTheBroker(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_SAID_BY_THE_BROKER)


def configure(
    process: str, level: str, format_: Format = "text", *, dramatiq: bool = False
) -> None:
    """Log to standard error; what this function set up before is replaced.

    Args:
        process: its name in each line, such as ``relay``.
        level: such as ``INFO``.
        format_: ``auto``: for people if standard error is a terminal, else for programs.
        dramatiq: say what Dramatiq says of its own processes, too.
    """
    name_process(process)
    root = logging.getLogger()
    for former in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(former)
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Json() if chosen(format_) == "json" else _Text())
    handler.addFilter(_NotSaidByTheBroker())
    handler.addFilter(_Keep())
    if not root.handlers:  # else somebody else has set the log up, as a test does
        root.addHandler(handler)
        root.setLevel(level)
    for noisy in ("urllib3", "alembic", "uvicorn", "asyncio", "aiohttp", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("dramatiq").setLevel(logging.NOTSET if dramatiq else logging.WARNING)
    silence_pika()


def chosen(format_: Format) -> Format:
    """What ``auto`` means here."""
    if format_ == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return format_


def name_process(process: str) -> None:
    """What the lines call this process from now on."""
    global _process
    _process = process


def silence_pika() -> None:
    """It writes seven lines and a traceback for each attempt; who uses it says what is wrong."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def last(*groups: Sequence[str]) -> list[str]:
    """The last lines of several groups together, in their order."""
    return [line for group in groups for line in group][-MOST_LINES:]
