"""The dashboard *Provisioning*."""

from monitoring.grafana.boards.parts import quantile
from monitoring.grafana.rendering import Board, Kind, Panel, Query, Row, Variable

_OF_TARGET = '{target=~"driver:($driver)"}'

PROVISIONING = Board(
    uid="autorenew-provisioning",
    title="Provisioning",
    says="Which infrastructure fails, why, and what waits for it.",
    variables=(Variable("driver", "Driver", "label_values(autorenew_unknown_operations, driver)"),),
    rows=(
        Row(
            "Do drivers do what they are asked for?",
            (
                Panel(
                    "Calls by outcome",
                    "done is good, refused is an answer; unavailable and unknown are trouble over"
                    " there or in between.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "sum by (target, outcome)"
                            ' (autorenew:calls:rate5m{target=~"driver:($driver)"})',
                            "{{target}} {{outcome}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "A call takes, 95 %",
                    "With its short retries, within its deadline.",
                    Kind.TIME_SERIES,
                    (quantile(0.95, "autorenew_call_seconds", "target", _OF_TARGET),),
                    unit="s",
                ),
                Panel(
                    "Calls under way",
                    "Not answered yet.",
                    Kind.TIME_SERIES,
                    (Query('sum(autorenew_calls_under_way{task=~"converge|reconcile"})', "calls"),),
                ),
            ),
        ),
        Row(
            "What has failed, and why?",
            (
                Panel(
                    "Waits for a person, by reason",
                    "Services that could not be provisioned: autorenew failed list --group.",
                    Kind.BARS,
                    (
                        Query(
                            "sum by (driver, reason) (autorenew:failed_tasks:max{"
                            'step="converge", driver=~"$driver"})',
                            "{{driver}} {{reason}}",
                        ),
                    ),
                    limits=(1, 100),
                    no_value="none",
                ),
                Panel(
                    "Over time, by driver",
                    "Ten more within an hour is an alert.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "sum by (driver) (autorenew:failed_tasks:max{"
                            'step="converge", driver=~"$driver"})',
                            "{{driver}}",
                        ),
                    ),
                ),
                Panel(
                    "Waits since",
                    "How long ago the oldest task of each step failed first. A day is an alert.",
                    Kind.BARS,
                    (Query("max by (step) (autorenew_oldest_failed_seconds)", "{{step}}"),),
                    unit="s",
                    limits=(3600, 86400),
                ),
            ),
        ),
        Row(
            "Which lanes are held?",
            (
                Panel(
                    "Lanes",
                    "Red while held: by an operator, the guard, or a breaker since the far side"
                    " fails.",
                    Kind.STATES,
                    (Query("max by (lane, by) (autorenew_lane_paused)", "{{lane}} {{by}}"),),
                    width=12,
                    height=10,
                    limits=(1, 1),
                ),
                Panel(
                    "Oldest task in a lane that is held",
                    "By queue.",
                    Kind.TIME_SERIES,
                    (Query("max by (queue) (autorenew_oldest_held_seconds)", "{{queue}}"),),
                    unit="s",
                    width=12,
                    height=10,
                    limits=(3600, 86400),
                ),
            ),
        ),
        Row(
            "Is it there as it should be?",
            (
                Panel(
                    "Operations in doubt",
                    "Of which nobody knows whether they were done. The far side is asked again.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            'max by (driver) (autorenew_unknown_operations{driver=~"$driver"})',
                            "{{driver}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Books that were compared",
                    "Within a day, by outcome: clean is good; too_many is not believed.",
                    Kind.BARS,
                    (
                        Query(
                            "sum by (driver, outcome) (increase(autorenew_reconciliations_total{"
                            'driver=~"$driver"}[1d]))',
                            "{{driver}} {{outcome}}",
                        ),
                    ),
                    width=12,
                    decimals=0,
                ),
            ),
        ),
    ),
)
