"""The dashboard *Are customers served*: where to look first."""

from monitoring.grafana.rendering import Board, Kind, Panel, Query, Row

SERVED = Board(
    uid="autorenew-served",
    title="Are customers served",
    says="In ten seconds: are customers served, and if not, why not. Start here.",
    rows=(
        Row(
            "Is work done in time?",
            (
                Panel(
                    "Alerts that page",
                    "Each has a page in docs/runbooks/ that says what to do.",
                    Kind.STAT,
                    (Query('count(ALERTS{alertstate="firing", severity="page"}) or vector(0)'),),
                    width=4,
                    height=6,
                    limits=(1, 1),
                ),
                Panel(
                    "Oldest task that could be done now",
                    "How long the oldest task has been ready whose lane is not held. Seconds are"
                    " good; it pages after ten minutes, for e-mails after an hour.",
                    Kind.BARS,
                    (Query("max by (queue) (autorenew_oldest_ready_seconds)", "{{queue}}"),),
                    unit="s",
                    width=8,
                    height=6,
                    limits=(60, 600),
                ),
                Panel(
                    "Started in time, last hour",
                    "Share of tasks that were started within 30 s (e-mails: 300 s) of when they"
                    " might be. The objective is 99 %.",
                    Kind.BARS,
                    (Query("1 - autorenew:task_waits_slow:ratio_rate1h", "{{queue}}"),),
                    unit="percentunit",
                    width=8,
                    height=6,
                    limits=(0.99, 0.95),
                    falling=True,
                    no_value="no task within an hour",
                    decimals=2,
                ),
                Panel(
                    "Oldest order not delivered",
                    "How long ago it was accepted. Minutes are good.",
                    Kind.STAT,
                    (Query("max(autorenew_oldest_undelivered_order_seconds)"),),
                    unit="s",
                    width=4,
                    height=6,
                    limits=(900, 3600),
                ),
            ),
        ),
        Row(
            "What ends well?",
            (
                Panel(
                    "Done, by step",
                    "Tasks a second that ended well.",
                    Kind.TIME_SERIES,
                    (Query('sum by (task) (autorenew:tasks:rate5m{outcome="done"})', "{{task}}"),),
                    unit="ops",
                ),
                Panel(
                    "Share that ends well",
                    "Of what ended: done, beside what waits for a person now.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            'sum by (queue) (autorenew:tasks:rate5m{outcome="done"}) / (sum by'
                            ' (queue) (autorenew:tasks:rate5m{outcome=~"done|failed|defect"}) > 0)',
                            "{{queue}}",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "Orders on their way",
                    "Orders that have not ended, by state.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            'max by (state) (autorenew_orders{state=~"accepted|priced|paid"})',
                            "{{state}}",
                        ),
                    ),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "What waits for somebody?",
            (
                Panel(
                    "Failed, waits for a person",
                    "What has failed is never tried again by itself: autorenew failed list.",
                    Kind.BARS,
                    (Query('sum by (queue) (autorenew:tasks:max{state="failed"})', "{{queue}}"),),
                    limits=(1, 100),
                ),
                Panel(
                    "Lanes that are held",
                    "By an operator, by the guard, or by a breaker since the far side fails:"
                    " autorenew lanes list.",
                    Kind.TABLE,
                    (Query("max by (lane, by) (autorenew_lane_paused) == 1"),),
                    no_value="none",
                ),
                Panel(
                    "Oldest task in a lane that is held",
                    "How long customers have been waiting for a lane.",
                    Kind.BARS,
                    (Query("max by (queue) (autorenew_oldest_held_seconds)", "{{queue}}"),),
                    unit="s",
                    limits=(3600, 86400),
                ),
            ),
        ),
        Row(
            "What is coming?",
            (
                Panel(
                    "Expires within 30 days",
                    "Services, by what will happen to them, and those past their day, unpaid.",
                    Kind.BARS,
                    (Query("max by (intent) (autorenew_services_due)", "{{intent}}"),),
                    width=12,
                ),
                Panel(
                    "Services",
                    "By universe and state.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "sum by (universe, state) (max by (universe, brand, state, mode)"
                            " (autorenew_services))",
                            "{{universe}} {{state}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
    ),
)
