"""The one exception of the lab."""


class LabError(Exception):
    """Something the lab needs is missing or did not work; the message says what and where."""
