"""Documents from every door: orders, commands, customers; and those that are rejected."""

from producers.intake.intake import Answer, Intake, Verdict

__all__ = ["Answer", "Intake", "Verdict"]
