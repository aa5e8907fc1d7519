"""The log of a process: one shape of lines, which say which process speaks."""

import logging
import os
import sys

_process = "autorenew"

# Of a lost connection Dramatiq writes two lines for each attempt of each queue; our broker says
# once that it is lost, and once that it is back.
_SAID_BY_THE_BROKER = ("Consumer encountered a connection error", "Restarting consumer in")


class _Formatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(speaker)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.speaker = f"{_process}[{os.getpid()}]"
        return super().format(record)


class _NotSaidByTheBroker(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_SAID_BY_THE_BROKER)


def configure(process: str, level: str) -> None:
    """Log to standard error.

    Args:
        process: its name in each line, such as ``relay``.
        level: such as ``INFO``.
    """
    name_process(process)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=level, handlers=[handler])
    for noisy in ("dramatiq", "urllib3", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    silence_pika()


def take_over(process: str) -> None:
    """Have the handlers that somebody else set up, as Dramatiq does, write lines of our shape."""
    name_process(process)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Formatter())
        handler.addFilter(_NotSaidByTheBroker())
    silence_pika()


def name_process(process: str) -> None:
    """What the lines call this process from now on."""
    global _process
    _process = process


def silence_pika() -> None:
    """It writes seven lines and a traceback for each attempt; who uses it says what is wrong."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)
