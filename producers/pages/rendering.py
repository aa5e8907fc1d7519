"""Templates and the style sheet: context in, answers out."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from producers.pages.account import Customer, masked
from producers.pages.said import wording
from schemas.wording import one_line

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_bytes()
# Its name changes with what is in it, so that it may be kept for long.
STYLE_NAME = f"style-{hashlib.sha256(STYLE).hexdigest()[:12]}.css"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Renderer:
    """Makes answers of templates.

    Args:
        prefix: the path below which the pages are, such as ``/my`` or nothing.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def page(
        self,
        template: str,
        language: str,
        title: str,
        *,
        status: int = 200,
        customer: Customer | None = None,
        brand: str = "",
        ends_soon: bool = False,
        headers: dict[str, str] | None = None,
        **context: Any,
    ) -> HTMLResponse:
        """
        Args:
            customer: whose page it is; None: of nobody who is known.
            brand: under whose name, if there is no customer.
            ends_soon: it can be used for an hour.
        """
        words = wording(language)
        body = (
            _environment()
            .get_template(f"{template}.html.j2")
            .render(
                language=words.language,
                say=words.say,
                title=title,
                brand=one_line(customer.brand if customer else brand, 80),
                customer=one_line(customer.id) if customer else "",
                address=one_line(masked(customer.email)) if customer else "",
                ends_soon=ends_soon,
                style=f"{self._prefix}/{STYLE_NAME}",
                **context,
            )
        )
        return HTMLResponse(
            body, status, headers={"Content-Language": words.language, **(headers or {})}
        )

    def error(
        self, language: str, name: str, *, status: int, headers: dict[str, str] | None = None
    ) -> HTMLResponse:
        """A page that says what went wrong; ``name`` is its key in the texts."""
        words = wording(language)
        return self.page(
            "message",
            language,
            words.say("error", name),
            status=status,
            headers=headers,
            explanation=words.say("error", f"{name}_explanation"),
            send=None,
        )


def style() -> Response:
    kept = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(STYLE, media_type="text/css", headers=kept)
