"""The contract over AMQP as files that other languages read, made from the typed messages.

``python -m autorenew.contract`` writes them into ``docs/contract/``; with ``--check`` it says which
of them are out of date.
"""

import json
from pathlib import Path
from typing import Any

from autorenew.contract.asyncapi import document
from autorenew.contract.documents import SCHEMAS

FOLDER = Path(__file__).parents[2] / "docs/contract"


def files() -> dict[str, str]:
    """Name -> content: a JSON Schema for each document and version, and the AsyncAPI document."""
    found: dict[str, Any] = {f"{name}.schema.json": schema() for name, schema in SCHEMAS.items()}
    found["asyncapi.json"] = document()
    return {
        name: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in found.items()
    }


def outdated(folder: Path = FOLDER) -> list[str]:
    """The files that are not as they should be, or should not be there."""
    wanted = files()
    there = {file.name: file.read_text() for file in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there if wanted.get(name) != there.get(name))
