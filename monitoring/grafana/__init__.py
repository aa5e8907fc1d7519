"""Dashboards for Grafana: ``boards`` says what is on them, ``python -m monitoring.grafana`` writes
the JSON that Grafana reads."""
