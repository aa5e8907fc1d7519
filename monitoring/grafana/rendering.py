"""Turns the description of a dashboard into the JSON model of Grafana 10 and later.

https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Fixed, and provisioned under this uid: a variable for it would not be filled in when a dashboard
# is provisioned from a file (grafana/grafana#10786).
DATA_SOURCE = {"type": "prometheus", "uid": "prometheus"}
TAG = "autorenew"
COLUMNS = 24
SCHEMA = 38
GREEN, YELLOW, RED = "green", "yellow", "red"


class Kind(StrEnum):
    """How a panel shows its numbers."""

    STAT = "stat"
    TIME_SERIES = "timeseries"
    BARS = "bargauge"
    TABLE = "table"
    STATES = "state-timeline"


@dataclass(frozen=True, slots=True)
class Query:
    """
    Attributes:
        legend: with labels as ``{{queue}}``; empty: one number, which needs none.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """
    Attributes:
        says: what it means and what is good, shown behind the (i) beside its title.
        unit: one of Grafana's, such as ``s`` or ``percentunit``.
        limits: values from which it is yellow, and red; None: no colour says anything.
        falling: low values are the bad ones.
        stacked: its series add up.
        no_value: what is shown where there is no series.
    """

    title: str
    says: str
    kind: Kind
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    height: int = 8
    limits: tuple[float, float] | None = None
    falling: bool = False
    stacked: bool = False
    no_value: str | None = None
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that answer one question."""

    question: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice of values of one label; all of them by default."""

    name: str
    label: str
    query: str


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    says: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


def as_json(board: Board) -> str:
    """The file that Grafana reads."""
    return json.dumps(model(board), indent=2) + "\n"


def model(board: Board) -> dict[str, Any]:
    """The JSON model of a dashboard."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.says,
        "tags": [TAG],
        "timezone": "utc",
        "editable": False,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "schemaVersion": SCHEMA,
        "time": {"from": "now-6h", "to": "now"},
        "links": [_link_to_the_others()],
        "templating": {"list": [_variable(variable) for variable in board.variables]},
        "annotations": {"list": [_alerts()]},
        "panels": list(_panels(board.rows)),
    }


def _link_to_the_others() -> dict[str, Any]:
    return {
        "title": "Autorenew",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _alerts() -> dict[str, Any]:
    """Alerts that page, as marks in every graph."""
    return {
        "name": "Alerts that page",
        "datasource": DATA_SOURCE,
        "enable": True,
        "iconColor": RED,
        "expr": 'ALERTS{alertstate="firing", severity="page"}',
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.label,
        "datasource": DATA_SOURCE,
        "query": variable.query,
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panels(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for row in rows:
        yield {
            "id": number,
            "type": "row",
            "title": row.question,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        number, top = number + 1, top + 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, height = 0, top + height, 0
            yield {
                "id": number,
                "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
                **_panel(panel),
            }
            number, left, height = number + 1, left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.says,
        "datasource": DATA_SOURCE,
        "targets": [_target(panel, *one) for one in zip("ABCDEF", panel.queries, strict=False)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
        **(_TABLE if panel.kind is Kind.TABLE else {}),
    }


def _target(panel: Panel, letter: str, query: Query) -> dict[str, Any]:
    now = panel.kind not in (Kind.TIME_SERIES, Kind.STATES)
    return {
        "refId": letter,
        "datasource": DATA_SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": now,
        "range": not now,
        "format": "table" if panel.kind is Kind.TABLE else "time_series",
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": _thresholds(panel)}
    if panel.no_value is not None:
        defaults["noValue"] = panel.no_value
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.kind is Kind.TIME_SERIES:
        defaults["min"] = 0
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 0,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.limits else "off"},
        }
        defaults["color"] = {"mode": "palette-classic"}
    elif panel.limits is not None:
        defaults["color"] = {"mode": "thresholds"}
    return defaults


def _thresholds(panel: Panel) -> dict[str, Any]:
    steps: list[tuple[float | None, str]] = [(None, GREEN)]
    if panel.limits is not None:
        yellow, red = panel.limits
        if panel.falling:
            steps = [(None, RED), (red, YELLOW), (yellow, GREEN)]
        else:
            steps = [(None, GREEN), (yellow, YELLOW), (red, RED)]
    return {
        "mode": "absolute",
        "steps": [{"color": color, "value": value} for value, color in steps],
    }


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[Kind, dict[str, Any]] = {
    Kind.STAT: {
        "reduceOptions": _LAST,
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
    },
    Kind.TIME_SERIES: {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    Kind.BARS: {
        "reduceOptions": _LAST,
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
        "minVizHeight": 10,
        "minVizWidth": 0,
        "valueMode": "color",
    },
    Kind.TABLE: {"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
    Kind.STATES: {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
        "mergeValues": True,
        "showValue": "never",
        "rowHeight": 0.9,
    },
}
_TABLE = {
    "transformations": [
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {}}}
    ]
}
