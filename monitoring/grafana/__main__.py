"""Writes the JSON of every dashboard anew."""

from pathlib import Path

from monitoring.grafana.boards import BOARDS
from monitoring.grafana.rendering import as_json

FOLDER = Path(__file__).parent / "dashboards"

if __name__ == "__main__":
    for board in BOARDS:
        path = FOLDER / f"{board.uid}.json"
        path.write_text(as_json(board))
        print(path)
