"""What ends a command with one line: wrong usage (exit code 2) or a failure (exit code 1)."""


class UsageError(Exception):
    """The command was called wrongly."""


class CommandError(Exception):
    """The command could not do what was asked."""
