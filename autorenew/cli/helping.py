"""Help that can be read whole: every command's first sentence, in full."""

from collections.abc import Mapping, Sequence

import click

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell says it."""


class Commands(click.Group):
    """A group that lists its commands with all of their first sentence, not its beginning.

    Attributes:
        sections: heading -> the commands under it. Without any there is one list.
    """

    sections: Mapping[str, Sequence[str]] = {}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in (self.sections or {"Commands": self.list_commands(ctx)}).items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                assert command is not None, name
                rows.append((name, command.get_short_help_str(limit=1000)))
            with formatter.section(heading):
                formatter.write_dl(rows)
