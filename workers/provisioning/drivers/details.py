"""What a customer is told of a resource: short texts, whatever a far side sends."""

import re
from typing import Any

MOST_DETAILS = 10
LONGEST_NAME = 50
LONGEST_TEXT = 200

# A name that says that its text is a secret. It would be kept in the database and sent by e-mail.
_SECRET = re.compile(
    r"pass(word|wd|phrase|code|$)|pwd|secret|token|credential|private|(api|access|auth)[ _-]?key",
    re.IGNORECASE,
)


def told(details: Any) -> dict[str, str]:
    """The first ten texts of an object, cleaned and cut; never one that is named like a secret.

    What is no text is left out: a resource that was created is there, however badly it is
    described.

    Args:
        details: any value of JSON.
    """
    kept: dict[str, str] = {}
    if not isinstance(details, dict):
        return kept
    for name, text in details.items():
        if len(kept) == MOST_DETAILS:
            break
        if not isinstance(text, str) or _SECRET.search(name):
            continue
        name, text = _cleaned(name)[:LONGEST_NAME], _cleaned(text)[:LONGEST_TEXT]
        if name and text:
            kept[name] = text
    return kept


def _cleaned(text: str) -> str:
    """A text without what neither a person nor PostgreSQL can take."""
    return "".join(filter(str.isprintable, text)).strip()
