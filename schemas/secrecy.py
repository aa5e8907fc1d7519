"""Which secrets are too weak to be used. No message repeats one."""

SHORTEST = 16
FEWEST_CHARACTERS = 6
PLACEHOLDERS = ("development-only",)
"""Passwords that once were defaults: anybody can read them in the files of a release."""


def placeholder(secret: str) -> str | None:
    """Why it is no secret at all; None: it may be one. For what others chose, such as a token."""
    if not secret.strip():
        return "is blank"
    if secret in PLACEHOLDERS:
        return "is a default that everybody knows"
    return None


def weakness(secret: str) -> str | None:
    """Why it could be guessed; None: it looks random. For what an operator makes."""
    if found := placeholder(secret):
        return found
    if secret != secret.strip():
        return "begins or ends with a blank"
    if len(secret) < SHORTEST:
        return f"must have at least {SHORTEST} characters"
    if len(set(secret)) < FEWEST_CHARACTERS or secret in (secret + secret)[1:-1]:
        return "repeats the same characters"
    return None
