"""Read and write the owner's wishes for any guest, running or not, in its libvirt metadata."""

from uuid import UUID

import libvirt

from virtbalance.hypervisor.errors import Fault, exception_of, fault_of
from virtbalance.hypervisor.guest_xml import settings_element
from virtbalance.hypervisor.link import Link
from virtbalance.hypervisor.settings_xml import NAMESPACE, read_settings, write_settings
from virtbalance.model.errors import HypervisorError
from virtbalance.model.guest import GuestSettings


def load_settings(link: Link, guest: str) -> tuple[GuestSettings, tuple[str, ...]]:
    """Return the settings of a guest (name or UUID) and what is wrong with them, if anything."""
    try:
        uuid = _uuid_of(link, guest)
        xml = link.live_xml(uuid)
    except libvirt.libvirtError as error:
        raise _exception(error, guest) from error
    return read_settings(settings_element(xml, NAMESPACE))


def store_settings(link: Link, guest: str, settings: GuestSettings) -> None:
    """Write the settings of a guest (name or UUID): live if it runs, and where it is persistent.

    Settings that are all defaults are taken out. HypervisorError if there is no such guest.
    """
    xml = write_settings(settings)
    try:
        uuid = _uuid_of(link, guest)
        if link.find(uuid).id >= 0:
            _set(link, uuid, xml, config=False)
        if link.is_persistent(uuid):
            _set(link, uuid, xml, config=True)
    except libvirt.libvirtError as error:
        raise _exception(error, guest) from error


def _set(link: Link, uuid: str, xml: str | None, *, config: bool) -> None:
    try:
        link.set_metadata(uuid, xml, NAMESPACE, config=config)
    except libvirt.libvirtError as error:
        nothing_there = error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA
        if xml is not None or not nothing_there:
            raise


def _uuid_of(link: Link, guest: str) -> str:
    """Return the UUID of a guest; what looks like one may still be a name."""
    try:
        return link.find(str(UUID(guest))).uuid
    except ValueError:
        return link.uuid_of(guest)
    except libvirt.libvirtError as error:
        if fault_of(error) is not Fault.GONE:
            raise
        return link.uuid_of(guest)


def _exception(error: libvirt.libvirtError, guest: str) -> HypervisorError:
    if fault_of(error) is Fault.GONE:
        return HypervisorError(f"there is no guest {guest!r}")
    return exception_of(error, f"settings of {guest}")
