"""How schemathesis writes what it knows no media type of."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context: Any, value: Any) -> bytes:
    """Whatever it is, on one line."""
    return json.dumps(value, default=str).encode()
