"""Tell libvirt's errors apart, by code and never by message; the one place that does."""

from enum import Enum, auto
from typing import Any

import libvirt

from virtbalance.model.errors import (
    HypervisorDeniedError,
    HypervisorError,
    HypervisorLostError,
)


class Fault(Enum):
    """What an error of libvirt means to us."""

    GONE = auto()
    """The guest does not exist or does not run (any more)."""
    LOST = auto()
    """The connection is gone."""
    DENIED = auto()
    """We are not allowed to do this."""
    UNSUPPORTED = auto()
    """This driver can't do this at all."""
    OCCUPIED = auto()
    """Another job holds the guest; nothing was done."""
    REFUSED = auto()
    """Anything else: libvirt or QEMU said no."""


_FAULT_BY_CODE = {
    libvirt.VIR_ERR_NO_DOMAIN: Fault.GONE,
    libvirt.VIR_ERR_INVALID_DOMAIN: Fault.GONE,
    libvirt.VIR_ERR_OPERATION_INVALID: Fault.GONE,
    libvirt.VIR_ERR_NO_CONNECT: Fault.LOST,
    libvirt.VIR_ERR_INVALID_CONN: Fault.LOST,
    libvirt.VIR_ERR_RPC: Fault.LOST,
    libvirt.VIR_ERR_OPERATION_DENIED: Fault.DENIED,
    libvirt.VIR_ERR_ACCESS_DENIED: Fault.DENIED,
    libvirt.VIR_ERR_AUTH_FAILED: Fault.DENIED,
    libvirt.VIR_ERR_AUTH_CANCELLED: Fault.DENIED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: Fault.DENIED,
    libvirt.VIR_ERR_NO_SUPPORT: Fault.UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: Fault.UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: Fault.UNSUPPORTED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: Fault.UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: Fault.OCCUPIED,
}
_CODES_WITHOUT_MEANING = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR)
_ORIGINS_OF_CONNECTION = (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)
_ERRNO_OF_DENIAL = (1, 13)


def fault_of(error: Any) -> Fault:
    """Classify one ``libvirt.libvirtError``.

    Internal and system errors carry no meaning in their code; those raised by the transport mean
    that the connection broke, and their first integer is the ``errno``.
    """
    code = error.get_error_code()
    if code in _CODES_WITHOUT_MEANING and error.get_error_domain() in _ORIGINS_OF_CONNECTION:
        return Fault.DENIED if error.get_int1() in _ERRNO_OF_DENIAL else Fault.LOST
    return _FAULT_BY_CODE.get(code, Fault.REFUSED)


def text_of(error: Any) -> str:
    """Return what libvirt said, on one line."""
    said = error.get_error_message() or str(error)
    return " ".join(str(said).split())


def exception_of(error: Any, doing: str) -> HypervisorError:
    """Turn an error that concerns the whole connection into one of ours."""
    text = f"{doing}: {text_of(error)}"
    match fault_of(error):
        case Fault.LOST:
            return HypervisorLostError(text)
        case Fault.DENIED:
            return HypervisorDeniedError(text)
        case _:
            return HypervisorError(text)
