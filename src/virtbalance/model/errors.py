"""What can go wrong with a hypervisor, told apart once and for all."""


class HypervisorError(Exception):
    """The hypervisor can't do what is asked; the message says what and where."""


class HypervisorLostError(HypervisorError):
    """The connection is gone or can't be made; trying again later may help."""


class HypervisorDeniedError(HypervisorError):
    """The connection does not permit changes, or not these."""
