"""What the simulator says when its own state can't be."""


class ImpossibleStateError(AssertionError):
    """The simulation broke a law of nature; the simulator is wrong, not the policy."""
