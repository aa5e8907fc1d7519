"""What upstream is told about a document over AMQP."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.json_bodies import Problem

REPLY_TYPE = "reply.v1"
"""The property ``type`` of a message that carries one."""


class Reply(BaseModel):
    """The outcome of one document. Fields may be added: readers ignore those they do not know."""

    model_config = ConfigDict(frozen=True)

    verdict: Literal["accepted", "refused", "rejected"]
    key: str | None = None
    """Of an order."""
    order_id: str | None = None
    """The order's id, if its key was taken: by this document, or by an earlier one."""
    repeated: bool = False
    """Nothing was done: the same document was answered this way before."""
    problems: list[Problem] = []
    """Why it was not accepted."""

    def as_json(self) -> bytes:
        """Its JSON, without what it has not."""
        return self.model_dump_json(exclude_none=True).encode()
