"""What is on the dashboards. A row asks a question; its panels answer it, from left to right.

Gauges of the exporter are taken with ``max by``: two exporters show the same database twice.
"""

from monitoring.grafana.boards.money import MONEY
from monitoring.grafana.boards.provisioning import PROVISIONING
from monitoring.grafana.boards.queues import QUEUES
from monitoring.grafana.boards.served import SERVED

BOARDS = (SERVED, QUEUES, PROVISIONING, MONEY)
