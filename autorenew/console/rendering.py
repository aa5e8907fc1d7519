"""Templates, and how times, numbers and other people's texts are shown."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from autorenew.console.context import Visit
from schemas.values import OperatorRole

HERE = Path(__file__).parent


def visible(value: Any) -> Any:
    """Texts of others, with characters that hide or turn text around shown as their codes."""
    if isinstance(value, Markup) or not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in value.replace("\r", "")
    )


def ago(moment: datetime, now: datetime) -> str:
    """``3 min ago``, or ``in 3 min``."""
    seconds = (now - moment).total_seconds()
    said = span(abs(seconds))
    return f"{said} ago" if seconds >= 0 else f"in {said}"


def span(seconds: float | timedelta | None) -> str:
    """A duration in the largest unit of which it has two or more: ``90 s``, ``3 min``, ``2 d``."""
    if seconds is None:
        return "-"
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "0 s"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def when(moment: datetime | None) -> Markup:
    """A time with its zone, and how long ago it was."""
    if moment is None:
        return Markup("-")
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{}&nbsp;UTC</time> <span class="ago">{}</span>').format(
        utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}", ago(utc, datetime.now(UTC))
    )


def number(value: float | None) -> str:
    """With separators of thousands."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def counted(count: int, one: str = "task", many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def short(identifier: object) -> str:
    return str(identifier)[:8]


def detail(value: Any) -> str:
    """A value of an event's detail, or of a filter, as text."""
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    made.filters |= {
        "when": when, "span": span, "number": number, "counted": counted, "short": short,
        "detail": detail,
    }  # fmt: skip
    made.globals |= {"Role": OperatorRole}
    return made


def page(visit: Visit, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page, with the navigation of who has signed in."""
    session = visit.session
    known = {
        "visit": visit,
        "session": session,
        "csrf": session.csrf if session else "",
        "may_act": session is not None and session.role.may(OperatorRole.OPERATOR),
        "may_administer": session is not None and session.role.may(OperatorRole.ADMINISTRATOR),
    }
    html = environment().get_template(template).render(known | values)
    return HTMLResponse(html, status)
