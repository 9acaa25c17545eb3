"""The signals that end a program in order, and what a second one means."""

import signal


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return interrupt, termination and hang-up; not the last where it is ignored (``nohup``)."""
    asked = (signal.SIGINT, signal.SIGTERM)
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return asked if ignored else (*asked, signal.SIGHUP)


def let_the_next_kill(signum: int) -> None:
    """Have the next of these signals end the process at once.

    Not so a hang-up: shell and kernel both send one, and the second means no more than the first.
    """
    if signum != signal.SIGHUP:
        signal.signal(signum, signal.SIG_DFL)
