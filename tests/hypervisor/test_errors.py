"""libvirt's errors, told apart by code."""

import libvirt
import pytest

from virtbalance.hypervisor.errors import Fault, exception_of, fault_of, text_of
from virtbalance.model.errors import (
    HypervisorDeniedError,
    HypervisorError,
    HypervisorLostError,
)

pytestmark = pytest.mark.libvirt


class FakeError:
    """What is asked of a ``libvirtError``."""

    def __init__(self, code: int, domain: int = libvirt.VIR_FROM_QEMU, int1: int = -1) -> None:
        self._code, self._domain, self._int1 = code, domain, int1

    def get_error_code(self) -> int:
        return self._code

    def get_error_domain(self) -> int:
        return self._domain

    def get_int1(self) -> int:
        return self._int1

    def get_error_message(self) -> str:
        return "first line\n  second line"


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, Fault.GONE),
        (libvirt.VIR_ERR_OPERATION_INVALID, Fault.GONE),
        (libvirt.VIR_ERR_NO_CONNECT, Fault.LOST),
        (libvirt.VIR_ERR_INVALID_CONN, Fault.LOST),
        (libvirt.VIR_ERR_OPERATION_DENIED, Fault.DENIED),
        (libvirt.VIR_ERR_ACCESS_DENIED, Fault.DENIED),
        (libvirt.VIR_ERR_AUTH_UNAVAILABLE, Fault.DENIED),
        (libvirt.VIR_ERR_NO_SUPPORT, Fault.UNSUPPORTED),
        (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, Fault.UNSUPPORTED),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, Fault.OCCUPIED),
        (libvirt.VIR_ERR_INVALID_ARG, Fault.REFUSED),
        (libvirt.VIR_ERR_OPERATION_FAILED, Fault.REFUSED),
        (libvirt.VIR_ERR_INTERNAL_ERROR, Fault.REFUSED),
        (libvirt.VIR_ERR_SYSTEM_ERROR, Fault.REFUSED),
    ],
)
def test_by_code(code: int, fault: Fault) -> None:
    assert fault_of(FakeError(code)) is fault


@pytest.mark.parametrize("code", [libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR])
def test_codes_without_meaning_mean_a_loss_when_the_transport_raises_them(code: int) -> None:
    assert fault_of(FakeError(code, libvirt.VIR_FROM_RPC)) is Fault.LOST


@pytest.mark.parametrize(("errno", "fault"), [(2, Fault.LOST), (13, Fault.DENIED)])
def test_a_socket_that_may_not_be_opened(errno: int, fault: Fault) -> None:
    error = FakeError(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, errno)
    assert fault_of(error) is fault


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (libvirt.VIR_ERR_NO_CONNECT, HypervisorLostError),
        (libvirt.VIR_ERR_AUTH_FAILED, HypervisorDeniedError),
        (libvirt.VIR_ERR_INVALID_ARG, HypervisorError),
    ],
)
def test_exceptions(code: int, kind: type[HypervisorError]) -> None:
    error = exception_of(FakeError(code), "listing")
    assert type(error) is kind
    assert str(error) == "listing: first line second line"


def test_one_line() -> None:
    assert text_of(FakeError(1)) == "first line second line"
