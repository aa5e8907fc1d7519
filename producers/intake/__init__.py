"""Documents from every door: orders, commands, customers; and those that are rejected."""

from producers.intake.documents import Answer, Verdict
from producers.intake.intake import Intake

__all__ = ["Answer", "Intake", "Verdict"]
