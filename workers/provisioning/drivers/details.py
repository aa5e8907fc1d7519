"""What a customer is told of a resource: short texts, whatever a far side sends."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from workers.outside.texts import cleaned, printable

MOST_DETAILS = 10
LONGEST_NAME = 50
LONGEST_TEXT = 200

# A name that says that its text is a secret. It would be kept in the database and sent by e-mail.
# Tested on a name without accents, with a space before each capital of camel case. Short words
# count by themselves, or at the end of a name ("rootpw"); the others wherever they stand.
_SECRET = re.compile(
    r"""
      pass(?!enger|ive)                         # password, passwort, passphrase, mot de passe
    | secret | token | credential | private
    | key(?!board|word)
    | auth[ _-]?(code|info)                     # what transfers a domain
    | kennwort | geheim | schlu?e?ssel          # German
    | heslo | hasło                        # Czech and Slovak, Polish
    | contrase | wachtwoord | palavra | senha   # Spanish, Dutch, Portuguese
    | (pw|pwd|psk)(?![a-z])
    | (?<![a-z])(pin|puk|otp|totp|mdp|pins|pincode)(?![a-z])
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def told(details: Any) -> dict[str, str]:
    """The first ten texts of an object, cleaned and cut; never one that is named like a secret.

    What is no text is left out: a resource that was created is there, however badly it is
    described.

    Args:
        details: any value of JSON, or what a driver says they are.
    """
    kept: dict[str, str] = {}
    if not isinstance(details, Mapping):
        return kept
    for said, text in details.items():
        if len(kept) == MOST_DETAILS:
            break
        if not isinstance(said, str) or not isinstance(text, str):
            continue
        name = _name(said)
        if _is_secret(name):
            continue
        name = name[:LONGEST_NAME].strip()
        text = cleaned(printable(text).strip(), LONGEST_TEXT).strip()
        if name and text:
            kept[name] = text
    return kept


def _name(said: str) -> str:
    """A name as it is read: without what cannot be seen, and in one form (Unicode's NFKC)."""
    normal = unicodedata.normalize("NFKC", said)
    return unicodedata.normalize("NFKC", printable(normal)).strip()


def _is_secret(name: str) -> bool:
    parts = unicodedata.normalize("NFKD", name)
    plain = "".join(c for c in parts if not unicodedata.category(c).startswith("M"))
    return bool(_SECRET.search(plain) or _SECRET.search(_CAPITAL.sub(" ", plain)))
