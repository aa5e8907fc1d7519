"""The dashboard *Queues and workers*."""

from monitoring.grafana.boards.parts import RATE, quantile
from monitoring.grafana.rendering import Board, Kind, Panel, Query, Row, Variable

_OF_QUEUE = '{queue=~"$queue"}'

QUEUES = Board(
    uid="autorenew-queues",
    title="Queues and workers",
    says="How much is done on which queue, by whom, and what holds it up.",
    variables=(Variable("queue", "Queue", "label_values(autorenew_tasks, queue)"),),
    rows=(
        Row(
            "How much waits, and for how long?",
            (
                Panel(
                    "Oldest task that could be done now",
                    "What to scale on. The depth of RabbitMQ's queues hides a backlog, since what"
                    " is handed over is capped.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            f"max by (queue) (autorenew_oldest_ready_seconds{_OF_QUEUE})",
                            "{{queue}}",
                        ),
                    ),
                    unit="s",
                    limits=(60, 600),
                ),
                Panel(
                    "Tasks by state",
                    "In the database: ready or dispatched wait for a worker, waiting and"
                    " backing_off for their time, failed for a person.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            f"sum by (state) (autorenew:tasks:max{_OF_QUEUE})",
                            "{{state}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Waited before it was started, 95 %",
                    "A deliberate delay does not count.",
                    Kind.TIME_SERIES,
                    (quantile(0.95, "autorenew_task_wait_seconds", "queue", _OF_QUEUE),),
                    unit="s",
                ),
            ),
        ),
        Row(
            "How much is done?",
            (
                Panel(
                    "Done",
                    "Tasks a second.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            'sum by (queue, task) (autorenew:tasks:rate5m{queue=~"$queue",'
                            ' outcome="done"})',
                            "{{queue}} {{task}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Not done",
                    "retried comes again by itself, failed waits for a person, defect is an error"
                    " that nobody foresaw, put_back was interrupted.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            'sum by (outcome) (autorenew:tasks:rate5m{queue=~"$queue",'
                            ' outcome!~"done|again"})',
                            "{{outcome}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Tasks in a batch",
                    "Batches form by themselves: one when work is scarce, hundreds under load.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "sum by (queue)"
                            f" (rate(autorenew_task_batch_size_sum{_OF_QUEUE}[{RATE}]))"
                            " / (sum by (queue)"
                            f" (rate(autorenew_task_batch_size_count{_OF_QUEUE}[{RATE}])) > 0)",
                            "{{queue}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Who works?",
            (
                Panel(
                    "Processes alive",
                    "By the heartbeat that each writes to the database. 0: nobody.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "sum by (process, queue) (autorenew:processes_alive:max)",
                            "{{process}} {{queue}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Versions",
                    "More than one for longer than an update takes is an alert.",
                    Kind.TABLE,
                    (
                        Query(
                            "sum by (process, version) (autorenew:processes_alive:max) > 0",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Processor",
                    "Cores that each process, or group of workers, uses.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "sum by (role, instance)"
                            f' (rate(process_cpu_seconds_total{{job=~"autorenew.*"}}[{RATE}]))',
                            "{{role}} {{instance}}",
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "Memory",
                    "Resident, of each process or group of workers.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "sum by (role, instance)"
                            ' (process_resident_memory_bytes{job=~"autorenew.*"})',
                            "{{role}} {{instance}}",
                        ),
                    ),
                    unit="bytes",
                    width=6,
                ),
            ),
        ),
        Row(
            "What does RabbitMQ hold?",
            (
                Panel(
                    "Messages",
                    "A message of a task queue carries many tasks. intake.dead should be empty.",
                    Kind.TIME_SERIES,
                    (Query("max by (queue) (rabbitmq_detailed_queue_messages)", "{{queue}}"),),
                ),
                Panel(
                    "Consumers",
                    "0: nobody reads it; intake.dead has none.",
                    Kind.TIME_SERIES,
                    (Query("max by (queue) (rabbitmq_detailed_queue_consumers)", "{{queue}}"),),
                ),
                Panel(
                    "Alarms",
                    "While there is one, RabbitMQ takes no message of anybody.",
                    Kind.STAT,
                    (
                        Query("max(rabbitmq_alarms_memory_used_watermark)", "memory"),
                        Query("max(rabbitmq_alarms_free_disk_space_watermark)", "disk"),
                        Query("max(rabbitmq_alarms_file_descriptor_limit)", "files"),
                    ),
                    limits=(1, 1),
                ),
            ),
        ),
        Row(
            "Do the loops go round?",
            (
                Panel(
                    "Since the last round",
                    "Of relay, scheduler and exporter. Seconds are good.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "time() - max(autorenew_relay_last_round_timestamp_seconds)", "relay"
                        ),
                        Query(
                            "time() - max(autorenew_scheduler_last_round_timestamp_seconds)",
                            "scheduler",
                        ),
                        Query(
                            "time() - max(autorenew_exporter_last_collection_timestamp_seconds)",
                            "exporter",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    "Rounds that failed",
                    "A minute, by cause. The loop goes on by itself.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "60 * sum by (loop, cause)"
                            f" (rate(autorenew_loop_failures_total[{RATE}]))",
                            "{{loop}} {{cause}}",
                        ),
                    ),
                ),
                Panel(
                    "Clock of the host",
                    "How far it is off the database's. Beyond a minute a process does no work.",
                    Kind.TIME_SERIES,
                    (
                        Query(
                            "max by (instance) (abs(autorenew_clock_ahead_seconds))",
                            "{{instance}}",
                        ),
                    ),
                    unit="s",
                    limits=(1, 5),
                ),
            ),
        ),
    ),
)
