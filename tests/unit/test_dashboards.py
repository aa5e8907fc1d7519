"""Dashboards are written anew, fit Grafana's types, and can be read."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana.__main__ import FOLDER
from monitoring.grafana.boards import BOARDS
from monitoring.grafana.rendering import COLUMNS, DATA_SOURCE, Board, Kind, as_json
from tests.support.prometheus import rules
from tests.unit.test_alerts import known_metrics

PROVISIONING = FOLDER.parent / "provisioning"
each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


@each_board
def test_file_is_what_its_description_says(board: Board) -> None:
    """Else: python -m monitoring.grafana"""
    assert (FOLDER / f"{board.uid}.json").read_text() == as_json(board)


def test_every_file_is_a_board() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {board.uid for board in BOARDS}


@each_board
def test_grafana_knows_every_field(board: Board) -> None:
    """Read into the types of Grafana's own SDK and written again, nothing is lost or changed."""
    plugins.register_default_plugins()
    written = json.loads(as_json(board))

    again = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))

    assert list(differences(written, again)) == []


def differences(ours: Any, theirs: Any, path: str = "") -> Any:
    """Where something of ours is missing or other; defaults that they add are none."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from differences(value, theirs.get(key, "missing"), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(*pair, f"{path}[{number}]")
    elif ours != theirs:
        yield path, ours, theirs


@each_board
def test_panels_stand_side_by_side(board: Board) -> None:
    taken = set()
    for panel in json.loads(as_json(board))["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@each_board
def test_panels_explain_themselves(board: Board) -> None:
    for row in board.rows:
        assert row.question.endswith("?")
        assert sum(panel.width for panel in row.panels) == COLUMNS, row.question
        for panel in row.panels:
            assert panel.says.endswith("."), panel.title
            graph = panel.kind is Kind.TIME_SERIES
            assert not graph or all(query.legend for query in panel.queries), panel.title


@each_board
def test_every_metric_and_every_variable_exists(board: Board) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    variables = {variable.name for variable in board.variables} | {"__rate_interval"}

    for row in board.rows:
        for panel in row.panels:
            for query in panel.queries:
                assert set(re.findall(r"\bautorenew_\w+", query.expr)) <= known_metrics()
                assert set(re.findall(r"\bautorenew:[\w:]+", query.expr)) <= recorded
                assert set(re.findall(r"\$(\w+)", query.expr)) <= variables
    used = as_json(board)
    assert all(f"${variable.name}" in used for variable in board.variables)


def test_provisioned_data_source_is_the_one_that_dashboards_name() -> None:
    """Grafana fills in no variable of a dashboard from a file (grafana/grafana#10786)."""
    (source,) = _read("datasources/prometheus.yml")["datasources"]

    assert {"type": source["type"], "uid": source["uid"]} == DATA_SOURCE
    for board in BOARDS:
        assert "${DS_" not in as_json(board)
        assert "__inputs" not in as_json(board)


def test_provisioned_dashboards_cannot_be_changed_in_place() -> None:
    (provider,) = _read("dashboards/autorenew.yml")["providers"]

    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    assert provider["allowUiUpdates"] is False


def _read(path: str) -> Any:
    return yaml.safe_load((PROVISIONING / Path(path)).read_text())
