"""What the dashboards have in common."""

from monitoring.grafana.rendering import Query

RATE = "$__rate_interval"


def quantile(share: float, metric: str, by: str, where: str = "") -> Query:
    """A quantile of a histogram.

    Args:
        by: the label that tells its series apart.
        where: a selector, in braces.
    """
    expr = f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{where}[{RATE}])))"
    return Query(expr, f"{{{{{by}}}}} {share * 100:g} %")
