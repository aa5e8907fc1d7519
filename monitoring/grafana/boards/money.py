"""The dashboard *Money*."""

from monitoring.grafana.boards.parts import RATE, quantile
from monitoring.grafana.rendering import Board, Kind, Panel, Query, Row

MONEY = Board(
    uid="autorenew-money",
    title="Money",
    says="What came in today, what was declined, what is in doubt, and whether the books hold.",
    rows=(
        Row(
            "What moved today?",
            (
                Panel(
                    "Today, in UTC",
                    "In major units of each currency. charged is what the gateway confirmed.",
                    Kind.TABLE,
                    (Query("max by (flow, currency) (autorenew_money_today)"),),
                    width=8,
                    decimals=2,
                ),
                Panel(
                    "Charges by outcome",
                    "Calls a second. unknown may have taken money: it is asked about.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "sum by (outcome) (autorenew:calls:rate5m{"
                            'target=~"gateway:.+", operation="charge"})',
                            "{{outcome}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Declined, last hour",
                    "Share of the charges that were decided. Far above the week before: an alert.",
                    Kind.TIME_SERIES,
                    (Query("autorenew:charges_declined:ratio_rate1h", "declined"),),
                    unit="percentunit",
                ),
            ),
        ),
        Row(
            "Is anything in doubt, or held?",
            (
                Panel(
                    "Charges in doubt",
                    "Charges and refunds of which nobody knows whether money moved.",
                    Kind.STAT,
                    (Query("max(autorenew_unknown_charges)"),),
                    width=6,
                    height=6,
                    limits=(1, 10),
                ),
                Panel(
                    "The oldest of them",
                    "An hour is an alert.",
                    Kind.STAT,
                    (Query("max(autorenew_oldest_unknown_charge_seconds)"),),
                    unit="s",
                    width=6,
                    height=6,
                    limits=(600, 3600),
                ),
                Panel(
                    "Lanes of money and ends",
                    "1: held. The guard holds them when the fleet may have lost track.",
                    Kind.STAT,
                    (
                        Query(
                            "max by (lane)"
                            ' (autorenew_lane_paused{lane=~"gateway|renewals|destructive"})',
                            "{{lane}}",
                        ),
                    ),
                    width=6,
                    height=6,
                    limits=(1, 1),
                ),
                Panel(
                    "E-mails that cannot be delivered",
                    "Their notices count as given after some days.",
                    Kind.STAT,
                    (Query("max(autorenew_undeliverable_emails)"),),
                    width=6,
                    height=6,
                    limits=(20, 1000),
                ),
            ),
        ),
        Row(
            "Do the books hold?",
            (
                Panel(
                    "Violations the audit knows of",
                    "0 is good. Anything else is an alert, and docs/how-to says what to do.",
                    Kind.STAT,
                    (Query("sum(max by (invariant) (autorenew_invariant_violations))"),),
                    width=6,
                    limits=(1, 1),
                ),
                Panel(
                    "Checks that are broken",
                    "By check of the audit.",
                    Kind.TABLE,
                    (Query("max by (invariant) (autorenew_invariant_violations) > 0"),),
                    width=12,
                    no_value="none",
                ),
                Panel(
                    "Since the last full audit",
                    "It is done piece by piece; two days is an alert.",
                    Kind.STAT,
                    (Query("time() - max(autorenew_last_full_audit_timestamp_seconds)"),),
                    unit="s",
                    width=6,
                    limits=(86400, 172800),
                ),
            ),
        ),
        Row(
            "Do renewals run?",
            (
                Panel(
                    "What fell due",
                    "Services a second, by their next step.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            f"sum by (step) (rate(autorenew_swept_services_total[{RATE}]))",
                            "{{step}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "E-mails",
                    "A second, by how the task ended. retried comes again by itself, failed waits"
                    " for a person.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            'sum by (outcome) (autorenew:tasks:rate5m{queue="reminders"})',
                            "{{outcome}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "The gateway takes, 95 %",
                    "A call with its short retries.",
                    Kind.TIME_SERIES,
                    (quantile(0.95, "autorenew_call_seconds", "target", '{target=~"gateway:.+"}'),),
                    unit="s",
                ),
            ),
        ),
    ),
)
